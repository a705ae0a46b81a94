from dataclasses import replace

import pytest

from ouro_rl.config.loader import load_config
from ouro_rl.config.train import TrainConfig
from ouro_rl.core.engine_config import EngineConfig
from ouro_rl.core.errors import UserError
from ouro_rl.core.rollout import Prompt
from ouro_rl.core.sampling_params import DepthPolicy, ExitRule, SamplingParams
from ouro_rl.evaluation.held_out import fitting_under, greedy_params, policy_for
from ouro_rl.model.configuration_ouro import OuroConfig
from ouro_rl.model.tiny_tokenizer import make_tokenizer

POLICY = DepthPolicy(min_depth=2, max_depth=3)


def test_a_fixed_depth_bounds_all_loops_and_another_rule_none() -> None:
    assert policy_for(ExitRule(kind="fixed", value=4), POLICY) == replace(POLICY, min_depth=1, max_depth=4)
    assert policy_for(ExitRule(kind="threshold", value=0.5), POLICY) == POLICY


def test_what_training_adds_to_explore_is_not_evaluated() -> None:
    config = load_config(
        TrainConfig,
        [],
        [
            "model.path=m",
            "trainer.steps=1",
            "rollout.exploration=0.1",
            "rollout.gate_temperature=2",
            "rollout.top_p=0.5",
        ],
    )
    params = greedy_params(config, make_tokenizer())
    assert (params.depth_policy.exploration, params.depth_policy.gate_temperature) == (0.0, 1.0)
    assert params.temperature == 0.0 and params.filters.top_p == 1.0


def test_a_prompt_must_fit_under_every_rule(caplog) -> None:
    shape = OuroConfig(max_position_embeddings=10)
    prompts = [Prompt(index=n, token_ids=(1,) * n, messages=[], columns={}) for n in (2, 5, 8)]
    short, long = SamplingParams(max_new_tokens=2), SamplingParams(max_new_tokens=6)
    kept = fitting_under(prompts, [short], shape, EngineConfig(), "x")
    assert [prompt.index for prompt in kept] == [2, 5, 8]
    kept = fitting_under(prompts, [short, long], shape, EngineConfig(), "x")
    assert [prompt.index for prompt in kept] == [2] and "left out 2 of 3 prompts" in caplog.text
    with pytest.raises(UserError, match="none of 3 prompts fits"):
        fitting_under(prompts, [short, replace(long, max_new_tokens=9)], shape, EngineConfig(), "x")
