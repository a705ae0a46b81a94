"""Samples of one group at depths of their own, beside those of the gate."""

from dataclasses import replace

import pytest

from ouro_rl.core.engine_config import EngineConfig
from ouro_rl.core.errors import UserError
from ouro_rl.core.kv_rule import KVRule
from ouro_rl.core.sampling_params import DepthPolicy, ExitRule, SamplingParams
from rollout_workers.engine.engine import RolloutEngine
from rollout_workers.engine.scheduling import scheduler
from tests.references.sequential import sequential_rollouts
from tests.references.tiny_models import rounding
from tests.rollout_workers.engine.test_engine import RULES, assert_same, calm_model, make_requests, within
from tests.rollout_workers.engine.test_engine_memory import gib_for, most_pages

LOOPS = 4
DEPTHS = (None, 1, 3, LOOPS)


def anytime_requests(lengths=(6, 1, 11)):
    """Groups of one sample by the exit rule and three at fixed depths."""
    return [replace(request, fixed_depths=DEPTHS) for request in make_requests(lengths, group=len(DEPTHS))]


def assert_depths(rollouts):
    for rollout in rollouts:
        fixed = DEPTHS[rollout.sample_index]
        assert rollout.fixed_depth == fixed
        assert fixed is None or set(rollout.depths) == {fixed}


@pytest.mark.parametrize("kv_rule", KVRule)
@pytest.mark.parametrize("rule", [rule for rule in RULES if rule.kind in ("sample", "fixed", "kl")], ids=ExitRule.label)
def test_each_sample_runs_its_own_depth(rule, kv_rule):
    """And everything else is as in the sequential computation: tokens, log-probs of the depths, the gate's samples."""
    model = calm_model(21, loops=LOOPS)
    params = SamplingParams(
        max_new_tokens=6, exit_rule=within(rule, LOOPS), stop_token_ids=(1,), depth_policy=DepthPolicy(kv_rule=kv_rule)
    )
    requests = anytime_requests()
    rollouts = RolloutEngine(model, EngineConfig(max_batch=5)).generate(requests, params)
    assert_depths(rollouts)
    assert_same(rollouts, sequential_rollouts(model, requests, params), rounding(model))


def test_the_samples_of_the_gate_do_not_notice(compute):
    model = calm_model(22, loops=LOOPS)
    params = SamplingParams(max_new_tokens=12)
    requests = anytime_requests()
    mixed = RolloutEngine(model, EngineConfig(max_batch=5)).generate(requests, params)
    alone = RolloutEngine(model, EngineConfig(max_batch=5)).generate(
        [replace(request, fixed_depths=()) for request in requests], params
    )
    first = slice(0, None, len(DEPTHS))
    assert_same(mixed[first], alone[first], rounding(model))
    assert len({depth for rollout in mixed[first] for depth in rollout.depths}) > 1


@pytest.mark.parametrize("kv_rule", [KVRule.LAST_EXITED, KVRule.FULL])
def test_static_passes_and_preemption_keep_the_depths(kv_rule, monkeypatch):
    monkeypatch.setattr(scheduler, "SPARE_TOKENS", 0)
    model = calm_model(23, loops=LOOPS)
    params = SamplingParams(max_new_tokens=20, depth_policy=DepthPolicy(kv_rule=kv_rule))
    requests = anytime_requests((3, 9, 1, 5))
    expected = RolloutEngine(model, EngineConfig(max_batch=16)).generate(requests, params)
    assert_depths(expected)
    tight = EngineConfig(max_batch=8, kv_memory_gib=gib_for(model, most_pages(requests, params, LOOPS) + 1))
    for config in (EngineConfig(max_batch=5, static_passes=True), tight, replace(tight, static_passes=True)):
        engine = RolloutEngine(model, config)
        assert_same(engine.generate(requests, params), expected, rounding(model))
        assert config.kv_memory_gib is None or engine.stats.preemptions > 0


def test_under_simulated_exits_a_fixed_sample_takes_its_token_at_its_depth():
    """The exit rule `simulated` draws tokens at the last loop, but a fixed depth is a real one."""
    model = calm_model(24, loops=LOOPS)
    full = DepthPolicy(kv_rule=KVRule.FULL)
    requests = anytime_requests((5, 2))

    def sampled(kind):
        params = SamplingParams(max_new_tokens=8, exit_rule=ExitRule(kind=kind), depth_policy=full)
        return RolloutEngine(model, EngineConfig(max_batch=8)).generate(requests, params)

    for simulated, real in zip(sampled("simulated"), sampled("sample"), strict=True):
        if real.fixed_depth is not None:
            assert_same([simulated], [real], rounding(model))


@pytest.mark.parametrize(
    ("depths", "message"),
    [((1, 2), "2 fixed depths for 4 samples"), ((None, 1, 5, 2), "depth of 5 is outside"), ((0,) * 4, "depth of 0 is")],
)
def test_depths_that_cannot_be_run_are_refused(depths, message):
    engine = RolloutEngine(calm_model(26, loops=LOOPS))
    request = replace(make_requests([3], group=4)[0], fixed_depths=depths)
    with pytest.raises(UserError, match=message):
        engine.generate([request], SamplingParams(max_new_tokens=2))
    engine.generate([replace(request, fixed_depths=DEPTHS)], SamplingParams(max_new_tokens=2))
    with pytest.raises(UserError, match="depth of 1 is outside of min_depth 2"):
        params = SamplingParams(max_new_tokens=2, depth_policy=DepthPolicy(min_depth=2))
        engine.generate([replace(request, fixed_depths=DEPTHS)], params)
