"""Metrics of rollouts, compared with values computed by hand."""

import math
from dataclasses import replace

import pytest

from ouro_rl.core.errors import RunError
from ouro_rl.core.rollout import Rollout, ScoredRollout, WeightChange
from ouro_rl.training.rollout_metrics import check_unscored, in_flight_metrics, rollout_metrics


def scored(
    prompt_index: int, depths: tuple[int, ...], reward: float | None, *, version: int = 5, stop: bool = True,
    forced: tuple[int, int] = (0, 0),
):  # fmt: skip
    n = len(depths)
    rollout = Rollout(
        prompt_index=prompt_index,
        sample_index=0,
        prompt_ids=(1,),
        completion_ids=(7,) * n,
        token_logprobs=(-0.5,) * n,
        depths=depths,
        depth_logprobs=(-0.7,) * n,
        policy_version=version,
        temperature=1.0,
        finish_reason="stop" if stop else "length",
        forced=forced,
    )
    status = "timeout" if reward is None else "correct"
    return ScoredRollout(
        rollout=rollout, completion="x" * n, rewards={"math": reward}, statuses={"math": status}, reward=reward
    )


def at_depth(item: ScoredRollout, depth: int) -> ScoredRollout:
    return replace(item, rollout=replace(item.rollout, fixed_depth=depth))


def test_anytime_samples_are_rewarded_apart_and_in_no_depth():
    by_gate = [scored(0, (1, 1), 1.0), scored(1, (2,), 0.0)]
    fixed = [at_depth(scored(0, (4, 4), 1.0), 4), at_depth(scored(1, (4,), 0.0), 4), at_depth(scored(1, (1,), None), 1)]
    metrics = rollout_metrics(by_gate + fixed, max_loops=4, policy_version=5)
    assert metrics["depth/mean"] == pytest.approx(4 / 3) and metrics["depth/p4"] == 0
    assert metrics["anytime/reward_4"] == 0.5 and math.isnan(metrics["anytime/reward_1"])
    assert metrics["reward/mean"] == 0.5 and metrics["completion/length_mean"] == 7 / 5
    assert not [name for name in rollout_metrics(by_gate, 4, 5) if "anytime" in name]


@pytest.mark.parametrize(("limit", "fails"), [(0.5, False), (0.49, True)])
def test_too_many_unscored_stop_the_run(limit, fails):
    batch = [scored(0, (1,), None), scored(0, (1,), 1.0)]
    if not fails:
        return check_unscored(batch, limit)
    with pytest.raises(RunError, match=r"50% of this step's .* 1 x math: timeout"):
        check_unscored(batch, limit)


def test_rollout_metrics_by_hand():
    batch = [
        scored(0, (1, 1), 1.0),
        scored(0, (2, 4), 0.0, forced=(1, 2)),  # group 0 has a signal
        scored(1, (4,), 1.0, version=3),
        scored(1, (4, 4, 4), None, stop=False),  # group 1: one scored rollout, so no signal
    ]
    metrics = rollout_metrics(batch, max_loops=4, policy_version=6)
    assert metrics == pytest.approx(
        {
            "rollout/lost": 0.0,
            "reward/mean": 2 / 3,
            "reward/std": math.sqrt(2) / 3,
            "reward/math": 2 / 3,
            "reward/math/status/correct": 3 / 4,
            "reward/math/status/timeout": 1 / 4,
            "reward/unscored": 1 / 4,
            "depth/mean": 24 / 8,
            "depth/p1": 2 / 8,
            "depth/p2": 1 / 8,
            "depth/p3": 0.0,
            "depth/p4": 5 / 8,
            "staleness/mean": (1 + 1 + 3 + 1) / 4,
            "completion/length_mean": 2.0,
            "completion/length_max": 3,
            "completion/stopped": 3 / 4,
            "completion/cut_off": 1 / 4,
            "completion/given_up": 0.0,
            "completion/thought_closed": 1 / 4,
        }
    )


def test_tokens_of_older_weights_by_hand():
    plain = scored(0, (1, 1, 1, 1), 1.0, version=5)
    change = WeightChange(start=1, version=6, recomputed=True)
    changed = replace(plain, rollout=replace(plain.rollout, weight_changes=(change,)))
    assert in_flight_metrics([plain, changed], 6) == {"staleness/older_tokens": 5 / 8, "staleness/changed": 1 / 2}
    metrics = rollout_metrics([plain, changed], max_loops=1, policy_version=6)
    assert metrics["staleness/mean"] == pytest.approx((1 + 1 / 4) / 2)


def test_rollout_metrics_does_not_depend_on_order():
    batch = [scored(i % 3, (1 + i % 4,) * (i + 1), 0.1 * i) for i in range(12)]
    assert rollout_metrics(batch, 4, 5) == rollout_metrics(batch[::-1], 4, 5)


def test_a_group_of_unscored_rollouts_has_no_mean():
    metrics = rollout_metrics([scored(0, (1,), None), scored(0, (1,), None)], max_loops=1, policy_version=5)
    assert math.isnan(metrics["reward/mean"]) and math.isnan(metrics["reward/math"])
    assert metrics["reward/unscored"] == 1.0


def test_no_rollouts_give_every_key_and_only_nan():
    metrics = rollout_metrics([], max_loops=2, policy_version=0)
    assert {"reward/mean", "depth/p1", "depth/p2", "completion/stopped"} <= metrics.keys()
    assert all(math.isnan(value) for value in metrics.values())


def test_aborted_rollouts_are_counted():
    batch = [scored(0, (1, 1), 1.0), scored(0, (2, 4), 0.0, stop=False)]
    lost = replace(batch[1], rollout=replace(batch[1].rollout, finish_reason="abort"))
    metrics = rollout_metrics([*batch, lost, lost], max_loops=6, policy_version=5)
    assert (metrics["completion/given_up"], metrics["completion/stopped"], metrics["depth/p6"]) == (0.5, 0.25, 0.0)
    assert metrics["completion/cut_off"] == 0.25, "given up is not cut off"


def test_what_is_lost_is_in_no_other_metric():
    found = [scored(0, (1, 2), 1.0), scored(0, (1,), 0.0)]
    nothing = dict.fromkeys(("completion_ids", "token_logprobs", "depths", "depth_logprobs"), ())
    gone = replace(found[0], rollout=replace(found[0].rollout, **nothing, finish_reason="lost"), reward=None)
    metrics, rest = (rollout_metrics(batch, max_loops=4, policy_version=5) for batch in ([*found, gone, gone], found))
    assert (metrics.pop("rollout/lost"), rest.pop("rollout/lost")) == (0.5, 0.0) and metrics == rest
    check_unscored([*found, gone, gone], 0.1)
