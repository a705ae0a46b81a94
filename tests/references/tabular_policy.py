"""A tiny policy that is a table, all of its outcomes, and the mean gradient of the objective over all groups of two.

A gate for each prefix and loop, a head for each prefix and depth, tokens of two kinds: with two loops and two tokens an
answer, 16 outcomes and 256 groups. The objective's own `credit` and `losses` see all groups as one update, each
weighted by its probability, so that the gradient of their loss is the estimator's mean.

O outcomes, n tokens an answer, T loops."""

import itertools

import torch
from torch import Tensor

from ouro_rl.model.policy.exit_gate import exit_log_pdf
from ouro_rl.training.objective.records import Probes, Replayed, Sampled
from tests.references.objectives import make_objective

KINDS, GROUP, PRICE = 2, 2, 0.3
UNBOUNDED = {
    "trainer__scale_rewards": "none", "trainer__importance_cap": 1e6,
    "trainer__clip_low": 1 - 1e-6, "trainer__clip_high": 1e6, "gate__clip_low": 1 - 1e-6, "gate__clip_high": 1e6,
    "gate__price": PRICE, "gate__price_max": 1.0,
}  # fmt: skip
"""Nothing is clipped, truncated or scaled."""
EVERYONE_PAYS = {"gate__solved_reward": -1.0, "gate__price_on": "all"}


class TabularPolicy:
    """Log-probs of every outcome's tokens and depths, with gradient. `rewards` [O] differ between outcomes; `solved`
    [O] are 0 or 1, more often 1 where an answer has more loops."""

    def __init__(self, seed: int, *, loops: int = 2, length: int = 2):
        actions = list(itertools.product(range(1, loops + 1), range(KINDS)))
        self.loops, self.length = loops, length
        self.outcomes = list(itertools.product(actions, repeat=length))
        self.pairs = list(itertools.product(range(len(self.outcomes)), repeat=GROUP))
        prefixes = sorted({outcome[:place] for outcome in self.outcomes for place in range(length)})
        places = {prefix: number for number, prefix in enumerate(prefixes)}
        random = torch.Generator().manual_seed(seed)
        self.gates = torch.randn(len(prefixes), loops - 1, generator=random).requires_grad_()
        self.heads = torch.randn(len(prefixes), loops, KINDS, generator=random).requires_grad_()
        self.parameters = (self.gates, self.heads)
        self.prefixes = torch.tensor([[places[o[:place]] for place in range(length)] for o in self.outcomes])
        self.depths, kinds = torch.tensor(self.outcomes).unbind(-1)
        asked = self.gates[self.prefixes].permute(2, 0, 1)
        self.gate_logits = torch.cat([asked, torch.zeros_like(asked[:1])])  # [T, O, n]
        self.log_pdf = exit_log_pdf(self.gate_logits)
        of_kinds = self.heads.log_softmax(-1)[self.prefixes, :, kinds]
        self.loop_logprobs = of_kinds.permute(2, 0, 1)  # of each token at every loop
        self.tokens = self.at_depths(self.loop_logprobs)
        self.of_depths = self.at_depths(self.log_pdf)
        self.rewards = torch.tensor([((5 * number + 3) % 7) / 7 for number in range(len(self.outcomes))])
        self.answer_loops = self.depths.sum(1).float()
        worth = self.rewards + 0.3 * self.answer_loops
        self.solved = (worth > worth.median()).float()

    def at_depths(self, values: Tensor) -> Tensor:
        """[T, O, n] -> [O, n]: those of the depths of the outcomes."""
        return values.gather(0, self.depths.unsqueeze(0) - 1)[0]

    def logprobs(self) -> Tensor:
        """Of each outcome, [O]."""
        return (self.tokens + self.of_depths).sum(1)

    def chances(self) -> Tensor:
        """Of each pair of outcomes, [O * O], without gradient."""
        return self.logprobs().detach().exp()[torch.tensor(self.pairs)].prod(1)

    def gradients(self, value: Tensor) -> tuple[Tensor, Tensor]:
        """Of the gates and of the heads."""
        found = torch.autograd.grad(value, self.parameters, retain_graph=True, allow_unused=True)
        gates, heads = (torch.zeros_like(p) if g is None else g for p, g in zip(self.parameters, found, strict=True))
        return gates, heads


def mean_gradients(policy: TabularPolicy, sampler: TabularPolicy, rewards: Tensor | None = None, **settings):
    """Gradients of the expected loss when `sampler` samples and `policy` is in training, `UNBOUNDED` unless `settings`
    say so; `gate__probe_share` 1 probes all tokens."""
    flat, length = torch.tensor(policy.pairs).flatten(), policy.length
    rule = make_objective(policy.loops, **UNBOUNDED | settings)
    everyone = torch.ones(len(flat), dtype=torch.bool)
    rewards = policy.rewards if rewards is None else rewards
    sampled = Sampled(rewards=rewards[flat], depths=sampler.depths[flat], finished=everyone, by_gate=everyone)
    credits = rule.credit(sampled, 0)
    gate_logits = policy.gate_logits[:, flat].flatten(1)
    replayed = Replayed(
        token_logprobs=policy.tokens[flat].flatten(),
        gate_logits=gate_logits,
        depths=sampled.depths.flatten(),
        sampler_logprobs=sampler.tokens.detach()[flat].flatten(),
        depth_logprobs=sampler.of_depths.detach()[flat].flatten(),
        advantages=credits.advantages.flatten(),
        gate_returns=credits.gate_returns.flatten(0, 1),
        gate_advantages=credits.gate_advantages.flatten(),
        loop_prices=credits.loop_prices.flatten(),
        stay_costs=credits.stay_costs.repeat_interleave(length, 0),
        hazards=credits.hazards.repeat_interleave(length, 0),
        by_gate=credits.by_gate.repeat_interleave(length),
        lengths=torch.full((len(flat),), length),
        weights=(sampler.chances() / GROUP).repeat_interleave(GROUP * length),
        probes=Probes(
            tokens=torch.arange(len(flat) * length),
            token_logprobs=policy.loop_logprobs[:, flat].flatten(1),
            gate_logits=gate_logits,
            detached_gate_logits=gate_logits.detach(),
        )
        if settings.get("gate__probe_share")
        else None,
    )
    return policy.gradients(rule.losses(replayed).total)


def assert_equal_gradients(got, wanted) -> None:
    for mine, right in zip(got, wanted, strict=True):
        torch.testing.assert_close(mine, right, atol=1e-6, rtol=0)


def difference(got, wanted) -> float:
    """The largest between two pairs of gradients."""
    return max((mine - right).abs().max().item() for mine, right in zip(got, wanted, strict=True))
