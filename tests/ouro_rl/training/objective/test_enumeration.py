"""Every outcome of a tiny policy, weighted by its probability: the mean gradient is that of the stated objective.

The policy is the one that sampled; `test_enumeration_off_policy.py` is about batches of another one."""

import itertools
import math

import pytest
import torch

from ouro_rl.model.policy.exit_gate import decision_logprobs, exit_log_pdf, log_exit, log_stay
from ouro_rl.training.objective.losses import gate_loss
from ouro_rl.training.objective.variety import to_follow, visited_information
from tests.references.tabular_policy import (
    EVERYONE_PAYS,
    GROUP,
    PRICE,
    TabularPolicy,
    assert_equal_gradients,
    mean_gradients,
)


def test_price_on_following_tokens_too_is_the_gradient_of_reward_minus_price_of_all_loops():
    """kappa 1: J = (1 - 1/G) E[r] - c E[loops of the answer], for both heads."""
    policy = TabularPolicy(0)
    worth = (1 - 1 / GROUP) * policy.rewards - PRICE * policy.answer_loops
    wanted = policy.gradients(-(policy.logprobs().exp() * worth).sum())
    assert_equal_gradients(mean_gradients(policy, policy, gate__kappa=1.0, **EVERYONE_PAYS), wanted)


def own_costs(policy, floor=1):
    """Expected loops of each token beyond the floor, given what came before it."""
    each = policy.tokens + policy.of_depths
    others = policy.logprobs().unsqueeze(1) - each
    chances = (others.detach() + policy.of_depths + policy.tokens.detach()).exp()
    return (chances * policy.depths.clamp(min=floor)).sum()


@pytest.mark.parametrize("loops, floor", [(2, 1), (3, 1), (3, 2)])
@pytest.mark.parametrize("baseline", ["state", "batch"])
def test_price_on_own_loops_moves_the_gate_alone(baseline, loops, floor):
    """kappa 0: the gate pays for the loops of its own token; the head learns from the reward alone."""
    policy = TabularPolicy(1, loops=loops)
    reward = (policy.logprobs().exp() * policy.rewards).sum() * (1 - 1 / GROUP)
    wanted = policy.gradients(PRICE * own_costs(policy, floor) - reward)
    got = mean_gradients(policy, policy, gate__baseline=baseline, gate__depth_floor=floor, **EVERYONE_PAYS)
    assert_equal_gradients(got, wanted)


def test_price_inside_the_reward_is_the_gradient_of_its_mean():
    policy = TabularPolicy(2)
    worth = (1 - 1 / GROUP) * (policy.rewards - PRICE * policy.answer_loops)
    wanted = policy.gradients(-(policy.logprobs().exp() * worth).sum())
    assert_equal_gradients(mean_gradients(policy, policy, gate__price_in="reward"), wanted)


def payments(rewards):
    """Pairs of outcomes in both orders, and what the first of them pays: the pair's solve rate, if it is solved."""
    for pair in itertools.product(range(len(rewards)), repeat=GROUP):
        rate = sum(rewards[outcome].item() for outcome in pair) / GROUP
        for mine, other in (pair, pair[::-1]):
            yield mine, other, rate, rate * rewards[mine].item()


def mean_of_those_that_stayed(policy, rewards, floor):
    """m_t: loops that followed the decisions to stay, those up to the floor free, weighted by what is paid."""
    means = []
    for loop in range(1, policy.loops):
        total = paid = 0.0
        for mine, _, _, pays in payments(rewards):
            for depth in policy.depths[mine].tolist():
                if depth > loop:
                    total, paid = total + pays * (max(depth, floor) - max(loop, floor)), paid + pays
        means.append(total / paid)
    return means


@pytest.mark.parametrize("loops, floor", [(2, 1), (3, 1), (3, 2)])
def test_the_price_of_solved_answers_is_what_the_formula_says(loops, floor):
    """Weights from the solve rate, with rewards 0 and 1: by plain sums over all pairs, decision by decision."""
    policy = TabularPolicy(3, loops=loops)
    rewards = policy.solved
    got = mean_gradients(policy, policy, rewards, gate__kappa=0.5, gate__depth_floor=floor)
    chances, means = policy.logprobs().exp().tolist(), mean_of_those_that_stayed(policy, rewards, floor)
    assert loops == 2 or floor == 2 or means[0] > 1.5, "deeper answers pay more often; of all that stayed it is 1.5"
    stay, leave = log_stay(policy.gate_logits[:-1]), log_exit(policy.gate_logits[:-1])
    depths, staying = policy.depths.tolist(), stay.exp().tolist()
    of_tokens = torch.zeros(policy.depths.shape)
    of_decisions = torch.zeros(2, *stay.shape)  # leaving, staying
    for mine, other, rate, pays in payments(rewards):
        chance = chances[mine] * chances[other] / GROUP
        compared = pays > 0 and rewards[other].item() == 1
        for place, depth in enumerate(depths[mine]):
            excess = sum(depths[mine][place + 1 :]) - sum(depths[other][place + 1 :])
            gain = rewards[mine].item() - rate - (0.5 * PRICE * pays * excess if compared else 0.0)
            of_tokens[mine, place] += chance * gain
            for loop in range(1, min(depth, loops - 1) + 1):
                baseline = staying[loop - 1][mine][place] * means[loop - 1]
                extra = max(depth, floor) - max(loop, floor) - baseline
                of_decisions[int(depth > loop), loop - 1, mine, place] += chance * (gain - PRICE * pays * extra)
    gains = (of_tokens * policy.tokens).sum() + (of_decisions * torch.stack([leave, stay])).sum()
    assert_equal_gradients(got, policy.gradients(-gains))


@pytest.mark.parametrize("baseline, share_left", [("batch", 0.0), ("state", 1.0)])
def test_how_much_of_the_incentive_to_fail_a_baseline_leaves(baseline, share_left):
    """One token, right if and only if the gate stays: to leave saves what the solved answers pay. `share_left`: in
    units of the chance to leave."""
    policy = TabularPolicy(6, length=1)
    rewards = (policy.depths[:, 0] == 2).float()
    leave = torch.sigmoid(policy.gates[0, 0]).item()
    priced, free = (
        mean_gradients(policy, policy, rewards, gate__baseline=baseline, gate__price=price)[0].item()
        for price in (PRICE, 0.0)
    )
    solve_rate = (1 + (1 - leave)) / 2  # of the group of one that is solved
    without_baseline = -PRICE * solve_rate * leave * (1 - leave)
    assert priced - free == pytest.approx(share_left * leave * without_baseline, abs=1e-6)
    assert without_baseline < -0.01


def test_the_head_pays_nothing_where_nothing_was_right():
    policy = TabularPolicy(4)
    for gradient in mean_gradients(policy, policy, torch.zeros(len(policy.outcomes)), gate__kappa=1.0):
        assert gradient.abs().max() == 0


def test_the_exact_gradient_of_the_mutual_information_comes_from_visited_loops():
    """Three loops, five tokens with gates of their own: expectation over all depths against autograd of I itself."""
    gates = torch.randn(3, 5, generator=torch.Generator().manual_seed(7)).requires_grad_()
    pdf = exit_log_pdf(gates).exp()
    mean = pdf.mean(1)
    entropy_of_mean = -(mean * mean.log()).sum()
    mean_entropy = -(pdf * pdf.log()).sum(0).mean()
    (wanted,) = torch.autograd.grad(mean_entropy - entropy_of_mean, gates, retain_graph=True)
    survival = torch.cat([torch.ones(1), 1 - mean.cumsum(0)])[:2]
    hazards = (mean[:2] / survival).detach().expand(5, 2)
    loss, seen = torch.zeros(()), torch.zeros(())
    for depth in (1, 2, 3):
        depths = torch.full((5,), depth)
        information = visited_information(gates, depths, hazards)
        decisions = decision_logprobs(gates, depths).T
        score = gate_loss(decisions, decisions.sum(1).detach(), to_follow(information.detach()), 0.2, 0.2)
        chances = pdf[depth - 1].detach() / 5
        loss = loss + (chances * (score - information.sum(1))).sum()
        seen = seen + (chances * information.sum(1).detach()).sum()
    (got,) = torch.autograd.grad(loss, gates)
    torch.testing.assert_close(got, wanted, atol=1e-6, rtol=0)
    assert seen.item() == pytest.approx((entropy_of_mean - mean_entropy).item(), abs=1e-6)
    assert not math.isclose(got.abs().max().item(), 0.0)
