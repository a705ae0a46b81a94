"""Exit rules that read the token distribution: by hand, and in the engine, where depths really vary."""

from __future__ import annotations

import math

import pytest
import torch

from ouro_rl.core.engine_config import EngineConfig
from ouro_rl.core.kv_rule import KVRule
from ouro_rl.core.sampling_params import DepthPolicy, ExitRule, SamplingParams
from ouro_rl.model.policy.read_out import satisfied
from rollout_workers.engine.engine import RolloutEngine
from tests.references.sequential import sequential_rollouts
from tests.references.tiny_models import rounding
from tests.rollout_workers.engine.test_engine import assert_same, calm_model, make_requests

SURE, TORN = torch.tensor([0.9, 0.05, 0.05]).log(), torch.tensor([0.5, 0.5, 1e-30]).log()
LOG_PROBS, BEFORE = torch.stack([SURE, TORN]), torch.stack([SURE, SURE])
LATER = torch.tensor([2, 2])


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        (ExitRule(kind="confidence", value=0.89), [True, False]),
        (ExitRule(kind="confidence", value=0.49), [True, True]),
        (ExitRule(kind="confidence", value=0.91), [False, False]),
        (ExitRule(kind="entropy", value=0.4), [True, False]),
        (ExitRule(kind="entropy", value=math.log(2) + 1e-4), [True, True]),
        (ExitRule(kind="kl", value=1e-6), [True, False]),
        (ExitRule(kind="kl", value=0.9), [True, True]),  # 0.5 log(0.5 / 0.9) + 0.5 log(0.5 / 0.05) = 0.857
        (ExitRule(kind="kl", value=0.8), [True, False]),
    ],
    ids=lambda value: value.label() if isinstance(value, ExitRule) else "",
)
def test_by_hand(rule, expected):
    assert satisfied(rule, LOG_PROBS, BEFORE, LATER).tolist() == expected


def test_the_first_loop_has_nothing_to_compare_with():
    rule = ExitRule(kind="kl", value=9.0)
    assert satisfied(rule, LOG_PROBS, LOG_PROBS, torch.tensor([1, 2])).tolist() == [False, True]


@pytest.mark.parametrize(
    "rule",
    [ExitRule(kind="confidence", value=0.07), ExitRule(kind="entropy", value=3.555), ExitRule(kind="kl", value=0.07)],
    ids=ExitRule.label,
)
@pytest.mark.parametrize("kv_rule", [KVRule.LAST_EXITED, KVRule.FULL])
def test_in_the_engine_within_depth_bounds(rule, kv_rule):
    model = calm_model(3)
    policy = DepthPolicy(kv_rule=kv_rule, min_depth=2)
    params = SamplingParams(max_new_tokens=8, exit_rule=rule, depth_policy=policy)
    requests = make_requests([6, 1, 9], group=2)
    rollouts = RolloutEngine(model, EngineConfig(max_batch=3)).generate(requests, params)
    assert_same(rollouts, sequential_rollouts(model, requests, params), rounding(model))
    depths = {depth for rollout in rollouts for depth in rollout.depths}
    assert len(depths) > 1 and min(depths) >= 2
