"""The objective as the trainer calls it: credit and losses of a config."""

import json

import pytest
import torch

from ouro_rl.model.policy.exit_gate import decision_logprobs
from ouro_rl.training.objective.records import Credits, Replayed, Sampled
from tests.references.objectives import make_objective


def taken(rewards, depths, **changes) -> Sampled:
    everyone = torch.ones(len(rewards), dtype=torch.bool)
    fields = {"rewards": torch.tensor(rewards), "depths": torch.tensor(depths)}
    return Sampled(**fields | {"finished": everyone, "by_gate": everyone} | changes)


def test_credit_has_a_value_for_every_token_and_decision():
    sampled = taken([1.0, 0.0], [[1, 3], [2, 0]])
    credits = make_objective(3, gate__price=0.0, trainer__scale_rewards="none").credit(sampled, 0)
    assert credits.of_rollouts.tolist() == [0.5, -0.5]
    assert credits.advantages[0].tolist() == [0.5, 0.5] and credits.advantages[1, 0] == -0.5
    assert credits.gate_returns.tolist() == [[[0.5, 0.0], [0.5, 0.5]], [[-0.5, -0.5], [0.0, 0.0]]]
    assert credits.stay_costs.abs().max() == 0 and credits.metrics["gate/price"] == 0


def test_the_price_is_in_units_of_reward_whatever_the_group():
    """However hard a prompt is: a group's deviation scales the token head's advantages alone."""
    rule = make_objective(3, gate__price=0.1, gate__baseline="batch", trainer__group_size=4, trainer__micro_batch=4)
    credits = rule.credit(taken([1.0, 0.0, 0.0, 0.0], [[3], [1], [1], [1]]), 0)
    assert credits.gate_returns[:, 0, 0].tolist() == pytest.approx([0.75, -0.25, -0.25, -0.25])
    assert credits.advantages[0, 0].item() == pytest.approx(1.5, rel=1e-3)
    rule = make_objective(3, gate__price=0.1, gate__baseline="batch", trainer__group_size=4, trainer__micro_batch=4)
    credits = rule.credit(taken([1.0, 1.0, 0.0, 0.0], [[3], [1], [1], [1]]), 0)
    # solve rate 1/2; extra loops 2 and 0, mean 1
    assert credits.gate_returns[:2, 0, 0].tolist() == pytest.approx([0.5 - 0.05, 0.5 + 0.05])


@pytest.mark.parametrize("scale", ["group", "batch", "none"])
def test_tokens_pay_in_units_of_reward_whatever_the_group(scale):
    """What their advantages say of a loop to come, against what they say of a reward, at 2, 4 and 8 of 8 right."""
    solved = [2, 4, 8]
    rule = make_objective(
        3,
        gate__price=0.1, gate__kappa=1.0, trainer__group_size=8, trainer__prompts_per_step=3, trainer__micro_batch=8,
        trainer__scale_rewards=scale,
    )  # fmt: skip
    rewards = [float(place < right) for right in solved for place in range(8)]
    free = rule.credit(taken(rewards, [[1, 1]] * 24), 0).advantages
    depths = [[1, 3] if place == 0 else [1, 1] for _ in solved for place in range(8)]
    charged = (free - rule.credit(taken(rewards, depths), 0).advantages)[:, 0].view(3, 8)
    of_reward = [(free[8 * group, 0] - free[8 * group + 7, 0]).item() for group in (0, 1)]  # right against wrong
    for group, right in enumerate(solved[:2]):
        assert charged[group, 0].item() / of_reward[group] == pytest.approx(0.1 * right / 8 * 2, rel=1e-5)
    mean_scale = sum(1 / each for each in of_reward) / 2
    assert charged[2, 0].item() * mean_scale == pytest.approx(0.2, rel=1e-3), "all right: as in the mean of the others"


def test_where_nothing_was_right_loops_are_free():
    for kind in ("solved", "all"):
        rule = make_objective(3, gate__price=0.1, gate__kappa=1.0, gate__price_on=kind)
        credits = rule.credit(taken([0.0, 0.0], [[3, 3], [1, 1]]), 0)
        assert credits.gate_returns.abs().max() == credits.stay_costs.abs().max() == 0
        assert credits.advantages.abs().max() == 0 and credits.metrics["gate/paying"] == 0


def test_decisions_and_tokens_pay_for_the_tokens_that_follow():
    rule = make_objective(3, gate__price=0.1, gate__kappa=0.5, gate__baseline="batch")
    credits = rule.credit(taken([1.0, 1.0], [[1, 2, 3], [1, 0, 0]]), 0)
    assert credits.advantages[0].tolist() == pytest.approx([-0.25, -0.15, 0.0])
    assert credits.advantages[1, 0].item() == pytest.approx(0.25)
    assert credits.gate_returns[0, 0, 0].item() == pytest.approx(-0.25 + 0.1 * 0.75)  # leaves where the mean stays 3/4


def test_fixed_depths_teach_the_gate_nothing():
    by_gate = torch.tensor([True, False])
    credits = make_objective(3, gate__price=0.1).credit(taken([1.0, 0.0], [[1], [3]], by_gate=by_gate), 0)
    assert credits.gate_returns[1].abs().max() == 0 and credits.gate_returns[0, 0, 0] != 0
    assert credits.advantages[1, 0] < 0, "the token head learns from them"


@pytest.mark.parametrize("baseline", ["state", "batch"])
@pytest.mark.parametrize("mode", ["policy", "off"])
def test_fixed_depths_have_no_gradient_at_the_gate_and_pay_nothing(baseline, mode):
    """Nor do they change what the others pay: their loops are in no mean and in no solve rate."""
    rule = make_objective(
        3,
        gate__price=0.1, gate__kappa=0.5, gate__variety_bonus=0.1 if mode == "policy" else 0.0, gate__price_on="all",
        gate__baseline=baseline, gate__mode=mode, trainer__group_size=4, trainer__micro_batch=4,
    )  # fmt: skip
    rewards, depths = [1.0, 0.0, 1.0, 0.0], [[1, 3, 2], [2, 0, 0], [3, 3, 0], [1, 2, 3]]
    by_gate = torch.tensor([True, True, True, False])
    credits = rule.credit(taken(rewards, depths, by_gate=by_gate), 0)
    deeper = [*depths[:3], [3, 3, 3]]
    assert torch.equal(rule.credit(taken(rewards, deeper, by_gate=by_gate), 0).advantages, credits.advantages)
    replayed = micro_batch(slice(4), credits)
    gates = replayed.gate_logits.requires_grad_()
    tokens = replayed.token_logprobs.requires_grad_()
    rule.losses(replayed).total.backward()
    of_fixed = ~replayed.by_gate
    assert of_fixed.sum() == 3 and (tokens.grad[of_fixed] != 0).all()
    if mode == "policy":
        assert gates.grad[:, of_fixed].abs().max() == 0
        assert gates.grad[:, ~of_fixed].abs().max() > 0
    else:
        assert gates.grad is None or gates.grad.abs().max() == 0


def test_the_best_of_a_group_alone_are_learned_from():
    rule = make_objective(
        3, gate__keep_best=2, trainer__group_size=4, trainer__micro_batch=4, trainer__scale_rewards="none"
    )
    credits = rule.credit(taken([1.0, 1.0, 1.0, 0.0], [[3], [2], [1], [1]]), 0)
    assert credits.of_rollouts.tolist() == [0, 0, 0, 0]  # the two that are kept are equal
    rule = make_objective(
        3, gate__keep_best=3, trainer__group_size=4, trainer__micro_batch=4, trainer__scale_rewards="none"
    )
    credits = rule.credit(taken([1.0, 0.0, 0.0, 1.0], [[3], [2], [1], [1]]), 0)
    assert credits.of_rollouts.tolist() == pytest.approx([1 / 3, -2 / 3, 0, 1 / 3])


def test_its_state_survives_a_checkpoint():
    first, second = (make_objective(3, gate__target_loops=3.0, gate__price_after="settled") for _ in range(2))
    sampled = taken([1.0, 0.0], [[1, 3], [2, 0]])
    for step in range(30):
        first.credit(sampled, step)
    second.restore(json.loads(json.dumps(first.state())))
    assert second.controller == first.controller != make_objective(3).controller
    assert second.credit(sampled, 30).metrics == first.credit(sampled, 30).metrics


def micro_batch(rollouts: slice, credits: Credits, order=None) -> Replayed:
    """Log-probs of an update of four completions, as if replayed; `order` permutes those of the slice."""
    random = torch.Generator().manual_seed(0)
    depths = torch.tensor([[1, 3, 2], [2, 0, 0], [3, 3, 0], [1, 2, 3]])
    gates = torch.randn(3, 4, 3, generator=random)
    tokens, recorded, gaps = (torch.randn(4, 3, generator=random) for _ in range(3))
    rows = torch.arange(4)[rollouts] if order is None else torch.tensor(order)
    mask = (depths != 0)[rows]
    lengths = mask.sum(1)
    by_depth = decision_logprobs(gates[:, rows], depths[rows]).sum(0)[mask]
    return Replayed(
        token_logprobs=tokens[rows][mask], sampler_logprobs=(tokens + 0.1 * recorded)[rows][mask],
        gate_logits=gates[:, rows][:, mask], depths=depths[rows][mask],
        depth_logprobs=by_depth + 0.1 * gaps[rows][mask],
        advantages=credits.advantages[rows][mask], gate_returns=credits.gate_returns[rows][mask],
        gate_advantages=credits.gate_advantages[rows][mask], loop_prices=credits.loop_prices[rows][mask],
        stay_costs=credits.stay_costs[rows].repeat_interleave(lengths, 0),
        hazards=credits.hazards[rows].repeat_interleave(lengths, 0),
        by_gate=credits.by_gate[rows].repeat_interleave(lengths), lengths=lengths,
        weights=torch.full((int(mask.sum()),), 1 / 9),
    )  # fmt: skip


@pytest.mark.parametrize("importance", ["token", "sequence"])
def test_the_loss_does_not_depend_on_order_or_micro_batches(importance):
    rule = make_objective(
        3,
        gate__price=0.1, gate__kappa=0.5, gate__variety_bonus=0.1, trainer__importance=importance,
        trainer__prompts_per_step=2, trainer__micro_batch=4,
    )  # fmt: skip
    rewards, depths = [1.0, 1.0, 0.0, 1.0], [[1, 3, 2], [2, 0, 0], [3, 3, 0], [1, 2, 3]]
    credits = rule.credit(taken(rewards, depths), 0)
    whole = rule.losses(micro_batch(slice(4), credits)).total.item()
    parts = [rule.losses(micro_batch(part, credits)).total.item() for part in (slice(1), slice(1, 3), slice(3, 4))]
    assert sum(parts) == pytest.approx(whole, abs=1e-6)
    assert rule.losses(micro_batch(slice(4), credits, order=[2, 0, 3, 1])).total.item() == pytest.approx(
        whole, abs=1e-6
    )


def test_rows_are_those_of_some_rollouts():
    credits = make_objective(3).credit(taken([1.0, 0.0], [[1, 3], [2, 0]]), 0)
    second = credits.rows(slice(1, 2))
    assert torch.equal(second.gate_returns, credits.gate_returns[1:]) and second.metrics == credits.metrics
    assert len(second.advantages) == len(second.stay_costs) == len(second.hazards) == len(second.by_gate) == 1


@pytest.mark.parametrize("target", [{"gate__target_loops": 5.0}, {"gate__target_depth": 2.5}, {}])
def test_the_price_does_not_move_for_what_is_lost(target):
    """A rollout without a token is none: the controller's measure is that of the others."""
    nan = float("nan")
    prices = []
    for rewards, depths in (([1.0, 0.0], [[1, 3], [2, 2]]), ([1.0, nan, 0.0, nan], [[1, 3], [0, 0], [2, 2], [0, 0]])):
        rule = make_objective(3, **target, gate__target_step=1.0, gate__price=0.01, gate__price_max=9.0)
        prices.append([rule.credit(taken(rewards, depths), step).metrics["gate/price"] for step in range(3)])
    assert prices[0] == prices[1] and (len(set(prices[0])) > 1) == bool(target)
