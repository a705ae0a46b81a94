"""What answers cost, by hand, and the warnings about depth."""

from dataclasses import replace

import pytest

from ouro_rl.core.kv_rule import KVRule
from ouro_rl.core.rollout import Rollout, ScoredRollout
from ouro_rl.core.sampling_params import DepthPolicy
from ouro_rl.model.configuration_ouro import OuroConfig
from ouro_rl.model.flops import answer_flops
from ouro_rl.training.compute_metrics import DepthWatch, compute_metrics

SHAPE = OuroConfig(vocab_size=11, hidden_size=8, intermediate_size=16, num_hidden_layers=2, num_attention_heads=2)


def scored(depths, reward) -> ScoredRollout:
    numbers = (0.0,) * len(depths)
    rollout = Rollout(
        prompt_index=0, sample_index=0, prompt_ids=(1, 2, 3), completion_ids=(4,) * len(depths), depths=depths,
        token_logprobs=numbers, depth_logprobs=numbers, policy_version=0, temperature=1.0, finish_reason="stop",
    )  # fmt: skip
    return ScoredRollout(rollout=rollout, completion="", rewards={}, statuses={}, reward=reward)


def test_what_answers_cost_by_hand():
    batch = [scored((1, 2, 3), 1.0), scored((4, 4), 0.0), scored((2,), None)]
    metrics = compute_metrics(batch, SHAPE, DepthPolicy(), solved_reward=0.5)
    assert metrics["compute/loops_per_answer"] == pytest.approx((6 + 8 + 2) / 3)
    assert metrics["compute/loops_per_correct_answer"] == 6
    assert metrics["depth/std_between_tokens"] == pytest.approx(
        (sum((d - 16 / 6) ** 2 for d in (1, 2, 3, 4, 4, 2)) / 6) ** 0.5
    )
    flops = [answer_flops(SHAPE, 3, item.rollout.depths, prompt_loops=4) for item in batch]
    assert metrics["compute/flops"] == pytest.approx(sum(flops) / 3)
    everything = compute_metrics(batch, SHAPE, DepthPolicy(kv_rule=KVRule.FULL), solved_reward=0.5)
    assert everything["compute/flops"] > metrics["compute/flops"], "every token runs all loops"


def test_without_a_solved_answer_its_cost_is_not_known():
    assert "compute/loops_per_correct_answer" not in compute_metrics([scored((1,), 0.0)], SHAPE, DepthPolicy(), 0.5)


def test_completions_at_fixed_depths_do_not_count():
    fixed = scored((4, 4), 1.0)
    fixed = replace(fixed, rollout=replace(fixed.rollout, fixed_depth=4))
    assert compute_metrics([scored((1, 2), 1.0), fixed], SHAPE, DepthPolicy(), 0.5)["compute/loops_per_answer"] == 3


def test_what_goes_wrong_with_depth_is_said_once_in_plain_words():
    watch, fine = DepthWatch(), {"depth/mean": 2.0, "depth/std_between_tokens": 0.8, "gate/information": 0.1}
    assert watch.warnings(fine) == []
    (collapsed,) = watch.warnings(fine | {"depth/mean": 1.0, "depth/std_between_tokens": 0.01})
    assert collapsed.startswith("depth collapsed: nearly all tokens run 1.00 loops (depth/std_between_tokens 0.010")
    assert watch.warnings(fine | {"depth/mean": 1.0, "depth/std_between_tokens": 0.01}) == []
    (static,) = watch.warnings(fine | {"gate/information": 0.0})
    assert static.startswith("gate static: depth does not depend on the token") and "gate/information 0.0000" in static
    assert watch.warnings(fine) == [] and len(watch.warnings(fine | {"gate/information": 0.0})) == 1
    assert DepthWatch().warnings({"depth/mean": 2.0}) == [], "nothing is known: nothing is said"


def test_what_is_lost_costs_nothing_and_is_no_answer():
    batch = [scored((1, 2, 3), 1.0), scored((4, 4), 0.0)]
    gone = scored((), None)
    gone = replace(gone, rollout=replace(gone.rollout, finish_reason="lost"))
    alone, among = (compute_metrics(some, SHAPE, DepthPolicy(), 0.5) for some in (batch, [gone, *batch, gone]))
    assert alone == among
