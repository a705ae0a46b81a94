"""Chunked prefill: long prompts do not stall samples that decode."""

import pytest

from ouro_rl.core.engine_config import EngineConfig
from ouro_rl.core.sampling_params import SamplingParams
from rollout_workers.engine.engine import RolloutEngine
from tests.references.tiny_models import batch_tolerance
from tests.rollout_workers.engine.test_engine import assert_same, calm_model, make_requests


@pytest.mark.parametrize("hidden", [32, 64])
def test_long_prompts_do_not_stall_those_that_decode(hidden):
    model = calm_model(7, hidden=hidden)
    requests, params = make_requests([2, 150, 90, 3], group=2), SamplingParams(max_new_tokens=12)
    engine = RolloutEngine(model, EngineConfig(max_batch=8, prefill_rows=20))
    widest = 0
    with engine.start(requests, params) as call:
        while not call.done:
            before = engine.stats.prefill_rows
            call.advance()
            widest = max(widest, engine.stats.prefill_rows - before)
            if engine.stats.passes == 3:
                assert len(call.live) == 2  # the short prompt's samples
    assert 0 < widest <= 20
    assert_same(
        call.rollouts,
        RolloutEngine(model, EngineConfig(max_batch=8)).generate(requests, params),
        batch_tolerance(model),
    )
