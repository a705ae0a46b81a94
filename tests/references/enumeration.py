"""All outcomes of a two-loop model with a handful of tokens: exact objectives and exact means of estimators.

An outcome is the (depth, token) of every position of an answer. O outcomes, n tokens an answer, T loops."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import torch
from torch import Tensor

from ouro_rl.core.kv_rule import KVRule
from ouro_rl.core.sampling_params import NO_DEPTH
from ouro_rl.model.policy.exit_gate import decision_logprobs, exit_log_pdf
from ouro_rl.model.policy.token_distribution import Recorded
from ouro_rl.training.token_logprobs import HeadReader, TokenReader
from tests.references.tiny_models import random_model

LOOPS, VOCAB, PROMPT = 2, 4, (3, 1, 2)


@dataclass(frozen=True, kw_only=True)
class Outcomes:
    """Every outcome replayed, with gradient."""

    depths: Tensor
    """int64 [O, n]."""
    tokens: Tensor
    """int64 [O, n]."""
    token_logprobs: Tensor
    """[O, n]: at the depths."""
    decisions: Tensor
    """[T - 1, O, n]: log-probs of the gate's decisions."""
    loop_logprobs: Tensor
    """[T, O, n]: of the token, at every loop."""
    gate_logits: Tensor
    """[T, O, n], of every loop."""

    @property
    def log_pdf(self) -> Tensor:
        """log p(d = t), [T, O, n]."""
        return exit_log_pdf(self.gate_logits)

    @property
    def logprobs(self) -> Tensor:
        """log-prob of each depth and token, [O, n]."""
        return self.decisions.sum(0) + self.token_logprobs

    @property
    def probabilities(self) -> Tensor:
        """Of each outcome as a whole, [O], detached."""
        return self.logprobs.detach().double().sum(1).exp()


def enumeration_model(seed: int = 0):
    """A random model whose two loops give quite different tokens."""
    return random_model(seed, layers=2, loops=LOOPS, vocab=VOCAB, hidden=16, gate_scale=4.0).double()


def replay_outcomes(model, length: int, rule: KVRule = KVRule.LAST_EXITED) -> Outcomes:
    """All outcomes of an answer of `length` tokens to `PROMPT`."""
    choices = list(itertools.product(range(1, LOOPS + 1), range(VOCAB)))
    outcomes = torch.tensor(list(itertools.product(choices, repeat=length)))  # [O, n, 2]
    depths, tokens = outcomes[..., 0], outcomes[..., 1]
    count, first = len(outcomes), len(PROMPT) - 1
    ids = torch.cat([torch.tensor(PROMPT).expand(count, -1), tokens], 1)
    before, after = torch.full((count, first), LOOPS), torch.full((count, 1), NO_DEPTH)
    predicting = torch.zeros_like(ids).bool()
    predicting[:, first:-1] = True
    reader = HeadReader(
        tokens=TokenReader(
            recorded=Recorded(token_ids=tokens.flatten(), support_sizes=torch.zeros(count * length).long()),
            temperature=1.0,
        ),
        depths=depths.flatten(),
        probed=torch.arange(count * length),
    )
    output = model(
        ids,
        depths=torch.cat([before, depths, after], 1),
        probes=predicting,
        logits_to_keep=predicting,
        kv_rule=rule,
        read_head=reader,
    )
    gates = output.gate_logits[:, predicting].view(LOOPS, count, length)
    return Outcomes(
        depths=depths,
        tokens=tokens,
        token_logprobs=output.reading.logprobs.view(count, length),
        decisions=decision_logprobs(gates, depths),
        loop_logprobs=output.reading.probes.token_logprobs.view(LOOPS, count, length),
        gate_logits=output.probed.gate_logits.view(LOOPS, count, length),
    )


def gradient(model, loss: Tensor, **options) -> Tensor:
    """The gradient of all parameters as one vector."""
    found = torch.autograd.grad(loss, list(model.parameters()), allow_unused=True, **options)
    return torch.cat(
        [
            torch.zeros_like(p).flatten() if g is None else g.flatten()
            for p, g in zip(model.parameters(), found, strict=True)
        ]
    )


def advantages(outcomes: Outcomes) -> Tensor:
    """A fixed advantage of each answer, whatever its depths: [O]."""
    places = torch.arange(1, outcomes.tokens.shape[1] + 1)
    return torch.sin(3.0 * (outcomes.tokens * places).sum(1) + 1.0).double()
