"""Every outcome of a tiny policy, weighted by its probability: the mean gradient is that of the stated objective.

Two loops, two tokens of two kinds: 16 completions, 256 groups of two. The policy is a table: a gate for each prefix, a
head for each prefix and depth. The objective's own `credit` and `losses` see all groups as one update, each weighted by
its probability, so that the gradient of their loss is the estimator's mean."""

import itertools
import math

import pytest
import torch

from ouro_rl.model.policy.exit_gate import decision_logprobs, exit_log_pdf
from ouro_rl.training.objective.losses import gate_loss
from ouro_rl.training.objective.records import Replayed, Sampled
from ouro_rl.training.objective.variety import to_follow, visited_information
from tests.ouro_rl.training.objective.test_objective import objective

LENGTH, GROUP, PRICE = 2, 2, 0.3
ACTIONS = [(depth, token) for depth in (1, 2) for token in (0, 1)]
OUTCOMES = list(itertools.product(ACTIONS, repeat=LENGTH))
PREFIXES = {prefix: index for index, prefix in enumerate([(), *((action,) for action in ACTIONS)])}
REWARDS = torch.tensor([((5 * number + 3) % 7) / 7 for number in range(len(OUTCOMES))])
PAIRS = list(itertools.product(range(len(OUTCOMES)), repeat=GROUP))
LOOPS = torch.tensor([float(sum(depth for depth, _ in outcome)) for outcome in OUTCOMES])


class Policy:
    """Log-probs of every outcome's tokens and depths, with gradient: [outcomes, LENGTH]."""

    def __init__(self, seed: int):
        random = torch.Generator().manual_seed(seed)
        self.gates = torch.randn(len(PREFIXES), generator=random).requires_grad_()
        self.heads = torch.randn(len(PREFIXES), 2, 2, generator=random).requires_grad_()
        self.parameters = (self.gates, self.heads)
        self.gate_logits = torch.stack([self._each(lambda prefix, action: self.gates[prefix]), torch.zeros(16, 2)])
        self.depths = self._each(lambda prefix, action: torch.tensor(action[0]))
        self.tokens = self._each(lambda prefix, action: self.heads[prefix, action[0] - 1].log_softmax(0)[action[1]])
        pdf = exit_log_pdf(self.gate_logits)
        self.of_depths = pdf.gather(0, self.depths.unsqueeze(0) - 1)[0]

    def _each(self, value):
        return torch.stack(
            [
                torch.stack([value(PREFIXES[outcome[:place]], outcome[place]) for place in range(LENGTH)])
                for outcome in OUTCOMES
            ]
        )

    def logprobs(self):
        """Of each outcome, [16]."""
        return (self.tokens + self.of_depths).sum(1)


def mean_gradients(policy: Policy, sampler: Policy, rewards=REWARDS, **settings):
    """Gradients of the expected loss when `sampler` samples and `policy` is in training."""
    settings = {"gate__price": PRICE, "gate__price_max": 1.0, "trainer__scale_rewards": "none"} | settings
    for name in ("trainer", "gate"):
        settings |= {f"{name}__clip_low": 1 - 1e-6, f"{name}__clip_high": 1e6}
    flat = torch.tensor(PAIRS).flatten()
    rule = objective(max_loops=2, trainer__importance_cap=1e6, **settings)
    sampled = Sampled(
        rewards=rewards[flat],
        depths=sampler.depths[flat],
        finished=torch.ones(len(flat), dtype=torch.bool),
        by_gate=torch.ones(len(flat), dtype=torch.bool),
    )
    credits = rule.credit(sampled, 0)
    chances = sampler.logprobs().detach().exp()[torch.tensor(PAIRS)].prod(1) / GROUP
    replayed = Replayed(
        token_logprobs=policy.tokens[flat].flatten(),
        gate_logits=policy.gate_logits[:, flat].flatten(1),
        depths=sampled.depths.flatten(),
        sampler_logprobs=sampler.tokens.detach()[flat].flatten(),
        depth_logprobs=sampler.of_depths.detach()[flat].flatten(),
        advantages=credits.advantages.flatten(),
        gate_returns=credits.gate_returns.flatten(0, 1),
        gate_advantages=credits.gate_advantages.flatten(),
        loop_prices=credits.loop_prices.flatten(),
        stay_costs=credits.stay_costs.repeat_interleave(LENGTH, 0),
        hazards=credits.hazards.repeat_interleave(LENGTH, 0),
        by_gate=credits.by_gate.repeat_interleave(LENGTH),
        lengths=torch.full((len(flat),), LENGTH),
        weights=chances.repeat_interleave(GROUP * LENGTH),
    )
    return gradients(rule.losses(replayed).total, policy)


def gradients(value, policy: Policy):
    return torch.autograd.grad(value, policy.parameters, retain_graph=True)


def agree(got, wanted):
    for mine, right in zip(got, wanted, strict=True):
        torch.testing.assert_close(mine, right, atol=1e-6, rtol=0)


EVERYONE_PAYS = {"gate__solved_reward": -1.0, "gate__price_on": "all"}


def test_price_on_following_tokens_too_is_the_gradient_of_reward_minus_price_of_all_loops():
    """kappa 1: J = (1 - 1/G) E[r] - c E[loops of the answer], for both heads."""
    policy = Policy(0)
    worth = (1 - 1 / GROUP) * REWARDS - PRICE * LOOPS
    wanted = gradients(-(policy.logprobs().exp() * worth).sum(), policy)
    agree(mean_gradients(policy, policy, gate__kappa=1.0, **EVERYONE_PAYS), wanted)


def own_costs(policy: Policy):
    """Expected loops of each token, given what came before it."""
    prefix = torch.cat([torch.zeros(16, 1), (policy.tokens + policy.of_depths)[:, :1]], 1).detach()
    own = policy.of_depths + policy.tokens.detach()
    later = torch.cat([(policy.tokens + policy.of_depths)[:, 1:], torch.zeros(16, 1)], 1).detach()
    return ((prefix + own + later).exp() * policy.depths).sum()


@pytest.mark.parametrize("baseline", ["state", "batch"])
def test_price_on_own_loops_moves_the_gate_alone(baseline):
    """kappa 0: the gate pays for the loops of its own token; the head learns from the reward alone."""
    policy = Policy(1)
    reward = (policy.logprobs().exp() * REWARDS).sum() * (1 - 1 / GROUP)
    wanted = gradients(PRICE * own_costs(policy) - reward, policy)
    agree(mean_gradients(policy, policy, gate__baseline=baseline, **EVERYONE_PAYS), wanted)


def test_price_inside_the_reward_is_the_gradient_of_its_mean():
    policy = Policy(2)
    worth = (1 - 1 / GROUP) * (REWARDS - PRICE * LOOPS)
    wanted = gradients(-(policy.logprobs().exp() * worth).sum(), policy)
    agree(mean_gradients(policy, policy, gate__price_in="reward"), wanted)


def test_the_price_of_solved_answers_is_what_the_formula_says():
    """Weights from the solve rate, with rewards 0 and 1: by plain sums over all pairs, decision by decision."""
    policy, rewards = Policy(3), (REWARDS > 0.5).float()
    got = mean_gradients(policy, policy, rewards, gate__kappa=0.5)
    chances, stay = policy.logprobs().exp().detach(), torch.sigmoid(-policy.gate_logits[0]).detach()
    losses = torch.zeros(())
    for pair in PAIRS:
        solved = [rewards[outcome].item() for outcome in pair]
        rate = sum(solved) / GROUP
        for mine, other in (pair, pair[::-1]):
            pays = rate * rewards[mine].item()
            compared = pays > 0 and rewards[other].item() == 1
            for place in range(LENGTH):
                excess = policy.depths[mine, place + 1 :].sum() - policy.depths[other, place + 1 :].sum()
                later = 0.5 * PRICE * pays * excess.item() if compared else 0.0
                extra = (policy.depths[mine, place] - 1).item() - stay[mine, place].item()
                gain = rewards[mine].item() - rate - later
                chance = chances[pair[0]] * chances[pair[1]] / GROUP
                losses = losses - chance * (gain - PRICE * pays * extra) * policy.of_depths[mine, place]
                losses = losses - chance * gain * policy.tokens[mine, place]
    agree(got, gradients(losses, policy))


def test_the_head_pays_nothing_where_nothing_was_right():
    policy = Policy(4)
    for gradient in mean_gradients(policy, policy, torch.zeros(16), gate__kappa=1.0):
        assert gradient.abs().max() == 0


def test_another_policys_whole_completions_weighted_by_the_joint_ratio_give_the_same_gradient():
    policy, sampler = Policy(5), Policy(6)
    worth = (1 - 1 / GROUP) * REWARDS
    wanted = gradients(-(policy.logprobs().exp() * worth).sum(), policy)
    agree(mean_gradients(policy, sampler, gate__price=0.0, trainer__importance="sequence"), wanted)
    by_token = mean_gradients(policy, sampler, gate__price=0.0)
    assert max((mine - right).abs().max() for mine, right in zip(by_token, wanted, strict=True)) > 1e-3


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
