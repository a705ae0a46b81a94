"""Every objective, as pure functions of log-probs. No model, no trainer.

Loops come first in stacked tensors ([T, ...]); masks are boolean and say which tokens count.
"""

from __future__ import annotations

import torch
from torch import Tensor


def token_weights(lengths: Tensor, loss_type: str, *, max_new_tokens: int, tokens_in_update: float) -> Tensor:
    """Weight of every token of a micro batch [n sequences] -> [sum of lengths], in TRL's loss types.

    `grpo`: mean over sequences of the mean over tokens. `bnpo`: mean over the micro batch's tokens. `dr_grpo`: sum over
    sequences x longest completion allowed. `dapo`: sum over `tokens_in_update`, the tokens of the whole update on one
    device. All but `dapo` are still to be divided by the number of micro batches."""
    count = len(lengths)
    per_sequence = {
        "grpo": 1.0 / (lengths.clamp(min=1) * count),
        "bnpo": torch.full_like(lengths, 1.0, dtype=torch.float32) / lengths.sum().clamp(min=1),
        "dr_grpo": torch.full_like(lengths, 1.0 / (count * max_new_tokens), dtype=torch.float32),
        "dapo": torch.full_like(lengths, 1.0 / max(1.0, tokens_in_update), dtype=torch.float32),
    }[loss_type]
    return per_sequence.float().repeat_interleave(lengths)


def clipped(ratio: Tensor, advantage: Tensor, low: float, high: float) -> Tensor:
    """PPO's pessimistic surrogate, as a loss: -min(r A, clip(r, 1 - low, 1 + high) A). Any shape."""
    return -torch.min(ratio * advantage, ratio.clamp(1 - low, 1 + high) * advantage)


def token_loss(logprobs: Tensor, sampler_logprobs: Tensor, advantages: Tensor, low: float, high: float) -> Tensor:
    """The token head's loss of each token [n]; importance weights are taken from the recorded log-probs."""
    return clipped((logprobs - sampler_logprobs).exp(), advantages, low, high)


def gate_loss(decisions: Tensor, depth_logprobs: Tensor, returns: Tensor, low: float, high: float) -> Tensor:
    """The gate's loss of each token: the sum over its decisions of a clipped policy gradient.

    `decisions` [n, T - 1]: log-probability of each decision now, 0 where none was taken; `depth_logprobs` [n]: the recorded
    log p(d); `returns` [n, T - 1] from `gate_returns`. The workers record the probability of the whole depth, so the
    importance weight of a token is one number for all its decisions; the gradient of each decision is weighted by its
    own return (the loops that *it* caused)."""
    ratio = (decisions.sum(1) - depth_logprobs).exp().detach().unsqueeze(1)
    ratio = ratio * (decisions - decisions.detach()).exp()
    return clipped(ratio, returns, low, high).sum(1)
