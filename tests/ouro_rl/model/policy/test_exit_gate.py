import math
from dataclasses import replace

import pytest
import torch

from ouro_rl.core.errors import UserError
from ouro_rl.core.sampling_params import NO_DEPTH, DepthPolicy, ExitRule
from ouro_rl.model.policy.exit_gate import (
    check_depth_policy,
    decides,
    decision_entropy,
    decision_logprobs,
    decision_mask,
    exit_log_pdf,
    exit_quantiles,
    exits,
    expected_depth,
    log_stay,
    policy_logits,
    temperature_tensor,
)
from ouro_rl.training.objective.loop_costs import extra_loops
from tests.references.exit_distribution import depth_logprobs, gate_entropy, threshold_depths


def logit(p):
    return math.log(p / (1 - p))


def test_exit_distribution_by_hand():
    # lambda = 1/2, 1/4, (ignored): p = 1/2, 1/2 * 1/4, 1/2 * 3/4
    gates = torch.tensor([logit(0.5), logit(0.25), 7.0])
    assert exit_log_pdf(gates).exp().tolist() == pytest.approx([0.5, 0.125, 0.375])
    assert depth_logprobs(gates.view(3, 1).expand(3, 4), torch.tensor([1, 2, 3, NO_DEPTH])).tolist() == pytest.approx(
        [math.log(0.5), math.log(0.125), math.log(0.375), 0.0]
    )
    entropy = -sum(p * math.log(p) for p in (0.5, 0.125, 0.375))
    assert gate_entropy(gates).item() == pytest.approx(entropy)


def test_decisions_add_up_to_the_depth():
    gates = torch.tensor([[logit(0.5)], [logit(0.25)], [0.3]])
    assert decision_logprobs(gates, torch.tensor([1]))[:, 0].tolist() == pytest.approx([math.log(0.5), 0.0])
    assert decision_logprobs(gates, torch.tensor([3]))[:, 0].tolist() == pytest.approx([math.log(0.5), math.log(0.75)])


@pytest.mark.parametrize("floor", [1, 2, 3])
@pytest.mark.parametrize("least", [1, 2, 4])
def test_the_expected_depth_has_its_exact_gradient(least, floor):
    gates = torch.randn(4, 5, generator=torch.Generator().manual_seed(0)).requires_grad_()
    pdf = exit_log_pdf(gates, least).exp()
    expected = (pdf * torch.arange(1, 5).clamp(min=floor).unsqueeze(1)).sum(0)
    torch.testing.assert_close(expected_depth(gates, least, floor), expected)
    if least == 4:
        assert expected_depth(gates, least, floor).tolist() == [4] * 5
        return
    (wanted,) = torch.autograd.grad(expected.sum(), gates)
    (got,) = torch.autograd.grad(expected_depth(gates, least, floor).sum(), gates)
    torch.testing.assert_close(got, wanted)


@pytest.mark.parametrize("floor", [0.02, 0.3])
def test_the_exploration_floor_bounds_lambda_and_has_its_gradient(floor):
    gates = torch.tensor([-200.0, -1.0, 0.0, 2.0, 200.0], requires_grad=True)
    mixed = torch.sigmoid(policy_logits(gates, DepthPolicy(exploration=floor, gate_temperature=2.0)))
    expected = floor + (1 - 2 * floor) * torch.sigmoid(gates / 2.0)
    torch.testing.assert_close(mixed, expected)
    assert mixed.min().item() == pytest.approx(floor) and mixed.max().item() == pytest.approx(1 - floor)
    (got,), (wanted,) = (torch.autograd.grad(value.sum(), gates) for value in (mixed, expected))
    torch.testing.assert_close(got, wanted)


@pytest.mark.parametrize("exploration", [0.0, 0.1])
@pytest.mark.parametrize("temperature", [1.0, 0.7, 3.0])
def test_a_temperature_in_a_tensor_stands_for_that_of_the_policy(temperature, exploration):
    """To the bit: graphs read it from a tensor, and the trainer replays what they sampled."""
    gates = torch.randn(4, 9, generator=torch.Generator().manual_seed(1))
    policy = DepthPolicy(gate_temperature=temperature, exploration=exploration)
    of_tensor = temperature_tensor(temperature, gates.device)
    other = replace(policy, gate_temperature=5.0)
    assert torch.equal(policy_logits(gates, other, of_tensor), policy_logits(gates, policy))
    if temperature == 1 and not exploration:
        assert torch.equal(policy_logits(gates, policy), gates)


def test_one_loop_has_no_decision():
    assert expected_depth(torch.randn(1, 3)).tolist() == [1, 1, 1]
    gates = torch.randn(1, 5)
    assert exit_log_pdf(gates).abs().max() == 0
    assert depth_logprobs(gates, torch.ones(5, dtype=torch.long)).abs().max() == 0


def test_bounds_by_hand():
    # lambda = 1/2, 1/4, 3/4, (ignored), at least 2 loops: p = 0, 1/4, 3/4 * 3/4, 3/4 * 1/4
    gates = torch.tensor([logit(0.5), logit(0.25), logit(0.75), 7.0])
    assert exit_log_pdf(gates, 2).exp().tolist() == pytest.approx([0, 0.25, 0.5625, 0.1875])
    depths = torch.tensor([2, 3, 4, NO_DEPTH])
    everywhere = gates.view(4, 1).expand(4, 4)
    assert depth_logprobs(everywhere, depths, 2).exp().tolist() == pytest.approx([0.25, 0.5625, 0.1875, 1.0])
    assert decision_mask(4, depths, 2).int().tolist() == [[0, 0, 0, 0], [1, 1, 1, 0], [0, 1, 1, 0]]
    assert gate_entropy(gates, 2).item() == pytest.approx(-sum(p * math.log(p) for p in (0.25, 0.5625, 0.1875)))
    # The number of gate logits is the maximum depth: with 3 of them, loop 3 gets the remaining probability.
    assert exit_log_pdf(gates[:3], 2).exp().tolist() == pytest.approx([0, 0.25, 0.75])
    assert exit_log_pdf(gates, 4).exp().tolist() == [0, 0, 0, 1] and gate_entropy(gates, 4).item() == 0
    assert [threshold_depths(gates.view(4, 1), q, 2).item() for q in (0.2, 0.3, 0.9)] == [2, 3, 4]


def test_the_expected_decision_entropy_is_the_entropy_of_the_distribution():
    gates = torch.tensor([0.3, -0.5, 1.0, 5.0]).view(4, 1).expand(4, 3)
    for least, depths in ((1, [1, 2, 3, 4]), (2, [2, 3, 4]), (4, [4])):
        chances = exit_log_pdf(gates[:, 0], least).exp()[least - 1 :]
        nats = torch.stack([decision_entropy(gates[:, :1], torch.tensor([depth]), least)[0] for depth in depths])
        assert (chances * nats).sum().item() == pytest.approx(gate_entropy(gates[:, 0], least).item(), abs=1e-6)
    assert decision_entropy(gates, torch.tensor([NO_DEPTH] * 3)).tolist() == [0, 0, 0]


def test_a_forced_decision_has_no_gradient():
    gates = torch.zeros(4, 3, requires_grad=True)
    decision_logprobs(gates, torch.tensor([2, 3, 4]), 2).sum().backward()
    assert (gates.grad != 0).int().tolist() == [[0, 0, 0], [1, 1, 1], [0, 1, 1], [0, 0, 0]]


@pytest.mark.parametrize("least", [1, 2, 4])
def test_no_nan_for_padding_empty_batches_and_saturated_gates(least):
    gates = torch.tensor([0.0, 1e4, -1e4, 30.0]).view(1, 4).expand(4, 4).clone().requires_grad_()
    nowhere = torch.full((4,), NO_DEPTH)
    assert depth_logprobs(gates, nowhere, least).tolist() == [0, 0, 0, 0]
    total = decision_logprobs(gates, torch.full((4,), 4), least).sum() + decision_entropy(gates, nowhere, least).sum()
    total = total + gate_entropy(gates, least).sum() + decision_entropy(gates, torch.full((4,), 4), least).sum()
    total.backward()
    assert torch.isfinite(total) and torch.isfinite(gates.grad).all()
    extra = extra_loops(nowhere.view(2, 2), 4, least)
    assert extra.shape == (3, 2, 2) and not extra.any()
    empty = torch.zeros(4, 0)
    none = torch.zeros(0, dtype=torch.long)
    assert exit_log_pdf(empty, least).shape == (4, 0) and depth_logprobs(empty, none, least).shape == (0,)
    assert threshold_depths(empty, 0.5, least).shape == gate_entropy(empty, least).shape == (0,)


def test_invalid_depth_bounds_are_refused():
    check_depth_policy(DepthPolicy(min_depth=2, max_depth=8), ExitRule(kind="fixed", value=6), trained=4)
    check_depth_policy(DepthPolicy(min_depth=4), ExitRule(), trained=4)
    with pytest.raises(UserError, match=r"min_depth 5 .* which is 4 \(the model's total_ut_steps\)"):
        check_depth_policy(DepthPolicy(min_depth=5), ExitRule(), trained=4)
    with pytest.raises(UserError, match="min_depth 3 .* which is 2: lower min_depth"):
        check_depth_policy(DepthPolicy(min_depth=3, max_depth=2), ExitRule(), trained=4)
    with pytest.raises(UserError, match="max_depth, which is 0"):
        check_depth_policy(DepthPolicy(max_depth=0), ExitRule(), trained=4)
    with pytest.raises(UserError, match="max_depth 1000 is more than 64 loops"):
        check_depth_policy(DepthPolicy(max_depth=1000), ExitRule(), trained=4)
    with pytest.raises(UserError, match="`fixed 5` is outside of min_depth 1 and max_depth 4 .* set max_depth"):
        check_depth_policy(DepthPolicy(), ExitRule(kind="fixed", value=5), trained=4)
    with pytest.raises(UserError, match="`fixed 1` is outside of min_depth 2"):
        check_depth_policy(DepthPolicy(min_depth=2), ExitRule(kind="fixed", value=1), trained=4)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_threshold_one_never_exits_early(dtype):
    gates = torch.full((4, 3), 30.0, dtype=dtype)  # lambda rounds to 1
    assert threshold_depths(gates, 1.0).tolist() == [4, 4, 4]
    assert threshold_depths(gates, 0.999).tolist() == [1, 1, 1]


@pytest.mark.parametrize("least", [1, 2, 5])
def test_the_incremental_rule_matches_the_closed_form(least):
    generator = torch.Generator().manual_seed(0)
    gates = torch.randn(5, 200, generator=generator) * 2
    for rule in (
        ExitRule(kind="threshold", value=0.5),
        ExitRule(kind="threshold", value=0.9),
        ExitRule(kind="fixed", value=5),
    ):
        quantiles = exit_quantiles(rule, torch.rand(200, generator=generator, dtype=torch.float64))
        survival, depths = torch.zeros(200), torch.full((200,), NO_DEPTH)
        for loop in range(1, 6):
            loops = torch.full((200,), loop)
            survival = survival + log_stay(gates[loop - 1]) * decides(loops, 5, least)
            leaving = exits(rule, survival, quantiles, loops, 5, least)
            depths = torch.where((depths == NO_DEPTH) & leaving, loop, depths)
        expected = torch.full((200,), 5) if rule.kind == "fixed" else threshold_depths(gates, rule.value, least)
        assert torch.equal(depths, expected)


@pytest.mark.parametrize("least", [1, 2])
def test_sampling_by_a_random_quantile_follows_the_exit_distribution(least):
    gates = torch.tensor([0.3, -0.5, 1.0, 0.0]).view(4, 1).expand(4, 40_000)
    uniform = torch.rand(40_000, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    quantiles = exit_quantiles(ExitRule(kind="sample"), uniform)
    loops = torch.arange(1, 5).view(4, 1).expand(4, 40_000)
    survival = (log_stay(gates) * decides(loops, 4, least)).cumsum(0)
    reached = torch.stack([exits(ExitRule(), survival[t], quantiles, loops[t], 4, least) for t in range(4)])
    depths = reached.int().argmax(0) + 1
    shares = torch.bincount(depths, minlength=5)[1:] / 40_000
    expected = exit_log_pdf(gates[:, :1], least).exp().squeeze(1)
    assert (shares - expected).abs().max() < 4 * math.sqrt(0.25 / 40_000)


@pytest.mark.parametrize("probabilities", [(0.1, 0.0, 0.6, 0.3), (0.25, 0.75), (0.0, 0.0, 0.0, 0.0, 1.0)])
def test_depths_of_a_fixed_marginal_do_not_depend_on_the_gate(probabilities):
    rule = ExitRule(kind="iid", probabilities=probabilities)
    uniform = torch.rand(40_000, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    quantiles = exit_quantiles(rule, uniform)
    gate = torch.full((40_000,), -torch.inf)  # the gate wants to exit at once
    reached = torch.stack([exits(rule, gate, quantiles, torch.full((40_000,), t), 4) for t in range(1, 5)])
    shares = torch.bincount(reached.int().argmax(0), minlength=4) / 40_000
    expected = torch.tensor([*probabilities, 0.0, 0.0])[:4]
    expected[3] += sum(probabilities[4:])  # the last loop takes what lies beyond it
    assert (shares - expected).abs().max() < 4 * math.sqrt(0.25 / 40_000)
    assert all(shares[t] == 0 for t in range(4) if expected[t] == 0)
