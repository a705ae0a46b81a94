"""Prompts that are too long to be completed: found before anything is sampled."""

import logging

import pytest
import torch

from ouro_rl.core.engine_config import EngineConfig
from ouro_rl.core.errors import UserError
from ouro_rl.core.rollout import Prompt
from ouro_rl.core.sampling_params import DepthPolicy, SamplingParams
from ouro_rl.data.fitting import keep_fitting
from rollout_workers.engine.engine import RolloutEngine
from rollout_workers.engine.kv_cache import page_bytes
from rollout_workers.engine.limits import prompt_limit
from tests.rollout_workers.engine.test_engine import calm_model, make_requests


def prompts_of(*lengths: int) -> list[Prompt]:
    return [Prompt(index=row, token_ids=(1,) * length) for row, length in enumerate(lengths)]


def test_long_prompts_are_left_out_and_counted(caplog: pytest.LogCaptureFixture) -> None:
    config = calm_model().config
    limit = prompt_limit(config, SamplingParams(max_new_tokens=200), EngineConfig(), torch.float32)
    assert limit.tokens == 56
    with caplog.at_level(logging.WARNING):
        assert keep_fitting(prompts_of(3, 56), limit, "data.source x") == prompts_of(3, 56) and not caplog.text
        kept = keep_fitting(prompts_of(3, 57, 56, 90), limit, "data.source x")
    assert [prompt.index for prompt in kept] == [0, 2], "the index is the row's, so that seeds do not move"
    assert "data.source x: left out 2 of 4 prompts, longer than 56 tokens (row 4 has 90); with 200" in caplog.text
    with pytest.raises(UserError, match="none of 2 prompts fits, the shortest has 57 tokens;\n.*256 positions"):
        keep_fitting(prompts_of(57, 90), limit, "data.source x")


@pytest.mark.parametrize("pages", [None, 81, 82, 83, 84])
@pytest.mark.parametrize("loops", [2, 4])
def test_the_limit_is_that_of_the_engine(pages: int | None, loops: int) -> None:
    """The engine completes a prompt of this length, and refuses one more token."""
    model = calm_model(heads=2, layers=1)
    model.config.max_position_embeddings = 24
    gib = None if pages is None else pages * page_bytes(model.config, torch.float32) / 2**30
    config, params = EngineConfig(max_batch=2, kv_memory_gib=gib), SamplingParams(
        max_new_tokens=3, depth_policy=DepthPolicy(max_depth=loops)
    )  # fmt: skip
    engine = RolloutEngine(model, config)
    exact = prompt_limit(model.config, params, config, torch.float32, spare_pages=0)
    assert exact.tokens == (21 if pages is None or loops == 2 else (pages - 1) // 4 - 2)
    assert len(engine.generate(make_requests([exact.tokens], group=1), params)) == 1
    with pytest.raises(UserError, match="lower"):
        engine.generate(make_requests([exact.tokens + 1], group=1), params)
    assert prompt_limit(model.config, params, config, torch.float32).tokens in (exact.tokens, exact.tokens - 1)
