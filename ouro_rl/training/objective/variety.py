"""Mutual information between a token and its depth: how much depths differ between tokens, beyond chance.

With p_i the exit distribution of token i and q their mean, I = H(q) - mean_i H(p_i) = mean_i KL(p_i || q), in nats. It
is 0 for a gate that treats all tokens alike, however random its depths are: what a bonus for the entropy of single
tokens rewards (arXiv 2610.09013). By the chain rule over loops, with the hazards h_t = q(t) / sum_{s >= t} q(s),

    KL(p || q) = sum_t S_{t-1} KL(lambda_t || h_t),    S_{t-1}: the probability that loop t is reached,

and the sum over the loops that a sampled depth visits is an unbiased estimate of it: no gate beyond a token's depth is
needed. Its gradient has two parts: that of each visited KL, and, since decisions change what is visited, that of each
decision's log-probability times the KLs that follow it. q needs no gradient: sum_t q(t) d log q(t) = 0."""

from __future__ import annotations

import torch
from torch import Tensor

from ouro_rl.model.policy.exit_gate import decision_mask, log_exit, log_stay


def visited_information(gate_logits: Tensor, depths: Tensor, hazards: Tensor, min_depth: int = 1) -> Tensor:
    """KL(lambda_t || h_t) in nats of each decision that led to `depths` [n], with gradient: [n, T - 1].

    `gate_logits` [T, n], `hazards` [n, T - 1], without gradient; 0 where no decision was made."""
    stay, leave, hazards = log_stay(gate_logits[:-1]), log_exit(gate_logits[:-1]), hazards.T
    nats = leave.exp() * (leave - hazards.log()) + stay.exp() * (stay - torch.log1p(-hazards))
    made = decision_mask(gate_logits.shape[0], depths, min_depth)
    return torch.where(made, nats, torch.zeros_like(nats)).T


def to_follow(values: Tensor) -> Tensor:
    """Sum of the values at later loops: [n, T - 1] -> [n, T - 1]."""
    return values.sum(1, keepdim=True) - values.cumsum(1)
