"""From rewards and depths to the advantages of both heads: group-relative for tokens, net of compute cost for the gate.

Raw rewards, compute cost and price stay separate until `gate_returns`, the only place that combines them.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ouro_rl.model.policy.exit_gate import decision_mask

EPSILON = 1e-4
"""Keeps the division by a group's standard deviation finite (TRL's value)."""


def group_advantages(rewards: Tensor, group_size: int, scale: str) -> Tensor:
    """Reward minus its group's mean, divided by the standard deviation of the group or the batch -> [n].

    `rewards` [n]: groups are consecutive rows; NaN means unscored, which is left out of mean and deviation and gets
    advantage 0. `scale`: `group`, `batch` or `none`.
    arXiv 2402.03300 (GRPO); `none` is arXiv 2503.20783 (Dr. GRPO)."""
    grouped = rewards.view(-1, group_size)
    centred = grouped - grouped.nanmean(dim=1, keepdim=True)
    if scale == "group":
        centred = centred / (_deviation(centred, dim=1) + EPSILON)
    elif scale == "batch":
        centred = centred / (_deviation(rewards.view(1, -1) - rewards.nanmean(), dim=1) + EPSILON)
    return centred.nan_to_num(nan=0.0).flatten()


def _deviation(centred: Tensor, dim: int) -> Tensor:
    """Unbiased standard deviation, ignoring NaN and keeping the dimension; 0 if fewer than two values are scored."""
    count = (~centred.isnan()).sum(dim, keepdim=True)
    return (centred.square().nansum(dim, keepdim=True) / (count - 1).clamp(min=1)).sqrt()


def extra_loops(depths: Tensor, max_loops: int, min_depth: int = 1) -> Tensor:
    """d - t for the decision at loop t: the loops run after it.

    `depths` [...] -> fp32 [T - 1, ...], 0 where no decision was made."""
    loops = torch.arange(1, max_loops, device=depths.device).view(-1, *[1] * depths.dim())
    return ((depths - loops) * decision_mask(max_loops, depths, min_depth)).float()


def gate_returns(advantages: Tensor, depths: Tensor, max_loops: int, price: float, min_depth: int = 1) -> Tensor:
    """The return of each gate decision: A - price * ((d - t) - its mean over the batch's decisions at loop t).

    `advantages` [n], `depths` [n, C] with `NO_DEPTH` at padding -> [n, C, T - 1], 0 where no decision was made. A
    decision pays the price for the loops that follow it (its cost to go); the mean over the batch is the baseline."""
    taken = decision_mask(max_loops, depths, min_depth)
    extra = extra_loops(depths, max_loops, min_depth)
    baseline = extra.sum((1, 2)) / taken.sum((1, 2)).clamp(min=1)
    returns = advantages.view(1, -1, 1) - price * (extra - baseline.view(-1, 1, 1))
    return (returns * taken).permute(1, 2, 0)
