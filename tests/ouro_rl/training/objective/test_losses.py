import math

import pytest
import torch

from ouro_rl.model.policy.exit_gate import decision_logprobs, exit_log_pdf
from ouro_rl.training.objective.loop_costs import extra_loops
from ouro_rl.training.objective.losses import clipped, gate_loss, rest_of_ratio, token_loss, token_weights
from ouro_rl.training.warmstart.losses import stage_one_loss, stage_two_losses
from tests.references.exit_distribution import depth_logprobs


def test_the_rest_of_the_joint_ratio_by_hand():
    own, other, lengths = torch.tensor([0.1, 0.2, -0.3]), torch.tensor([0.4, -0.1, 3.0]), torch.tensor([2, 1])
    by_token = rest_of_ratio(own, other, None, cap=2.0)
    assert by_token.tolist() == pytest.approx([math.exp(0.4), math.exp(-0.1), 2.0])
    whole = rest_of_ratio(own, other, lengths, cap=5.0)
    assert whole.tolist() == pytest.approx([math.exp(0.6 - 0.1), math.exp(0.6 - 0.2), 5.0])
    fresh = rest_of_ratio(torch.zeros(3), torch.zeros(3), lengths, cap=2.0)
    assert torch.equal(fresh, torch.ones(3)), "a fresh batch is not changed by a bit"


@pytest.mark.parametrize(
    "loss_type,expected",
    [
        ("grpo", [0.5, 1 / 6, 1 / 6, 1 / 6]),
        ("bnpo", [0.25] * 4),
        ("dr_grpo", [1 / 20] * 4),
        ("dapo", [1 / 8] * 4),
    ],
)
def test_token_weights(loss_type, expected):
    update = {"max_new_tokens": 10, "tokens_in_update": 8, "sequences_in_update": 2, "micro_batches": 1}
    lengths, all_of_them = torch.tensor([1, 3]), torch.tensor([True, True])
    assert token_weights(lengths, all_of_them, loss_type, **update).tolist() == pytest.approx(expected)


@pytest.mark.parametrize("loss_type", ["grpo", "bnpo", "dr_grpo", "dapo"])
def test_completions_left_out_are_in_no_denominator(loss_type):
    """Weights are those of an update without these sequences, however it falls into micro batches."""
    lengths, counted = torch.tensor([1, 3, 2, 4]), torch.tensor([True, False, True, True])
    update = {"max_new_tokens": 10, "tokens_in_update": 7.0, "sequences_in_update": 3.0, "micro_batches": 1}
    kept = token_weights(lengths[counted], counted[counted], loss_type, **update)
    assert kept.sum() == pytest.approx(7 / 30 if loss_type == "dr_grpo" else 1.0)
    got = token_weights(lengths, counted, loss_type, **update)
    token_counted = counted.repeat_interleave(lengths)
    assert got[token_counted].tolist() == kept.tolist() and not got[~token_counted].any()
    if loss_type != "bnpo":  # its denominator is the micro batch's
        parts = [token_weights(lengths[s], counted[s], loss_type, **update) for s in (slice(0, 2), slice(2, 4))]
        assert torch.cat(parts).tolist() == got.tolist()
    nothing = token_weights(lengths, counted & False, loss_type, **update | {"sequences_in_update": 0.0})
    assert nothing.tolist() == [0.0] * 10


def test_clipping_is_pessimistic():
    ratio = torch.tensor([2.0, 2.0, 0.1, 0.1])
    advantage = torch.tensor([1.0, -1.0, 1.0, -1.0])
    assert clipped(ratio, advantage, 0.2, 0.3).tolist() == pytest.approx([-1.3, 2.0, -0.1, 0.8])


def test_token_loss_uses_the_recorded_log_probs():
    logprobs = torch.tensor([math.log(0.5)], requires_grad=True)
    token_loss(logprobs, torch.tensor([math.log(0.5)]), torch.tensor([2.0]), 0.2, 0.2).sum().backward()
    assert logprobs.grad.item() == pytest.approx(-2.0)
    logprobs.grad = None
    token_loss(logprobs, torch.tensor([math.log(0.1)]), torch.tensor([2.0]), 0.2, 0.2).sum().backward()
    assert logprobs.grad.item() == 0.0  # ratio 5, clipped


def test_gate_gradient_is_the_policy_gradient_of_expected_cost():
    """With rewards equal and on-policy samples in their exact proportions, the gate's gradient is that of price *
    E[d]."""
    gates = torch.tensor([0.3, -0.4, 0.9], dtype=torch.float64, requires_grad=True)
    probabilities = exit_log_pdf(gates.view(3, 1)).exp().squeeze(1)
    expected_cost = 0.1 * (probabilities * torch.tensor([1.0, 2.0, 3.0])).sum()
    (wanted,) = torch.autograd.grad(expected_cost, gates, retain_graph=True)

    depths = torch.tensor([1, 2, 3])
    per_depth = gates.view(3, 1).expand(3, 3)
    decisions = decision_logprobs(per_depth, depths).T
    returns = -0.1 * extra_loops(depths, 3).T
    losses = gate_loss(decisions, depth_logprobs(per_depth, depths).detach(), returns, 0.2, 0.2)
    (got,) = torch.autograd.grad((probabilities.detach() * losses).sum(), gates)
    torch.testing.assert_close(got, wanted, atol=1e-6, rtol=1e-5)


def test_gate_loss_is_clipped_by_the_recorded_depth_probability():
    decisions = torch.tensor([[math.log(0.5), 0.0]], requires_grad=True)
    gate_loss(decisions, torch.tensor([math.log(0.1)]), torch.tensor([[1.0, 0.0]]), 0.2, 0.2).sum().backward()
    assert decisions.grad.abs().max() == 0


def test_stage_losses_by_hand():
    losses, gates = torch.tensor([[2.0], [1.0]]), torch.tensor([[0.0], [5.0]])  # p = 1/2, 1/2
    assert stage_one_loss(losses, gates, 0.1).item() == pytest.approx(1.5 - 0.1 * math.log(2))
    worth = 1 / (1 + math.exp(-50 * (1.0 - 0.005)))
    assert stage_two_losses(losses, gates).item() == pytest.approx(-math.log(0.5) * (worth + (1 - worth)))
    no_gain = stage_two_losses(losses.flip(0), torch.tensor([[3.0], [0.0]])).item()
    worth = 1 / (1 + math.exp(50 * 0.005))
    stay, leave = -math.log(1 + math.exp(3.0)), -math.log(1 + math.exp(-3.0))
    assert no_gain == pytest.approx(-(worth * stay + (1 - worth) * leave), rel=1e-5)
    three, logits = torch.cat([losses, losses[:1]]), torch.cat([gates[:1], gates])
    assert stage_two_losses(three, logits, min_depth=2) == stage_two_losses(three[1:], logits[1:])


@pytest.mark.parametrize(("loops", "min_depth"), [(1, 1), (3, 3)])
def test_stage_two_asks_nothing_of_a_gate_that_never_decides(loops, min_depth):
    gates = torch.ones(loops, 2, requires_grad=True)
    losses = stage_two_losses(torch.rand(loops, 2), gates, min_depth=min_depth)
    losses.sum().backward()
    assert losses.tolist() == [0.0, 0.0] and gates.grad.abs().max() == 0
