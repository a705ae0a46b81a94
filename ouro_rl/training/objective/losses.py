"""Losses of single tokens and decisions, as pure functions of log-probs, independent of model and trainer."""

from __future__ import annotations

import torch
from torch import Tensor


def token_weights(
    lengths: Tensor,
    counted: Tensor,
    loss_type: str,
    *,
    max_new_tokens: int,
    tokens_in_update: float,
    sequences_in_update: float,
    micro_batches: int,
) -> Tensor:
    """Loss weight of every token of a micro batch, so that the losses of an update add up: `lengths` [n] -> [sum of
    lengths], for TRL's loss types.

    Sequences that are not `counted` (bool [n]) get weight 0 and are in no denominator. `grpo`: mean over sequences of
    the mean over tokens. `dr_grpo`: sum divided by (sequences x `max_new_tokens`). `dapo`: mean over tokens. All of
    them over the whole update on one device, which has `tokens_in_update` and `sequences_in_update` that count. `bnpo`:
    mean over the micro batch's tokens, then over the `micro_batches`."""
    sequences = max(1.0, sequences_in_update)
    denominators = {
        "grpo": lengths.clamp(min=1) * sequences,
        "bnpo": (lengths * counted).sum().clamp(min=1) * micro_batches,
        "dr_grpo": torch.tensor(sequences * max_new_tokens),
        "dapo": torch.tensor(max(1.0, tokens_in_update)),
    }
    return (counted / denominators[loss_type]).float().repeat_interleave(lengths)


def clipped(ratio: Tensor, advantage: Tensor, low: float, high: float) -> Tensor:
    """PPO's pessimistic surrogate, as a loss: -min(r A, clip(r, 1 - low, 1 + high) A). Any shape."""
    return -torch.min(ratio * advantage, ratio.clamp(1 - low, 1 + high) * advantage)


def rest_of_ratio(own: Tensor, other: Tensor, lengths: Tensor | None, cap: float) -> Tensor:
    """What one head's importance ratio lacks of the joint one, truncated at `cap`: [n], without gradient.

    `own`, `other` [n]: log ratios of this head and of the other one, per token. The joint ratio is that of a token's
    pair of depth and token, or, with `lengths` [m], the product over its whole completion. Exactly 1 where the policy
    that sampled is the one in training."""
    joint = own + other
    if lengths is not None:
        completions = torch.arange(len(lengths), device=lengths.device).repeat_interleave(lengths)
        joint = joint.new_zeros(len(lengths)).index_add(0, completions, joint)[completions]
    return (joint - own).detach().exp().clamp(max=cap)


def token_loss(logprobs: Tensor, sampler_logprobs: Tensor, advantages: Tensor, low: float, high: float) -> Tensor:
    """The token head's loss for each token, all [n]; importance weights are relative to the recorded log-probs."""
    return clipped((logprobs - sampler_logprobs).exp(), advantages, low, high)


def gate_loss(decisions: Tensor, depth_logprobs: Tensor, returns: Tensor, low: float, high: float) -> Tensor:
    """The gate's loss for each token [n]: a clipped policy gradient, summed over the token's decisions.

    `decisions` [n, T - 1]: current log-probability of each decision, 0 where none was made; `depth_logprobs` [n]: the
    recorded log p(d); `returns` [n, T - 1]. Workers record the probability of the whole depth, so all decisions of a
    token share one importance weight; the gradient of each decision is weighted by its own return."""
    ratio = (decisions.sum(1) - depth_logprobs).exp().detach().unsqueeze(1)
    ratio = ratio * (decisions - decisions.detach()).exp()
    return clipped(ratio, returns, low, high).sum(1)
