"""From rewards and depths to what each head is told: group-relative advantages, and the gate's returns net of compute.

Raw rewards, compute cost and price stay apart until `gate_returns`, the one place where they meet.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ouro_rl.policy.exit_gate import decision_mask

EPSILON = 1e-4
"""Keeps the division by a group's standard deviation finite (TRL's value)."""


def group_advantages(rewards: Tensor, group_size: int, scale: str) -> Tensor:
    """Reward minus its group's mean, over the standard deviation of the group or the batch (`scale`: group, batch, none).

    `rewards` [n], groups in consecutive rows, NaN = unscored: left out of mean and deviation, advantage 0.
    arXiv 2402.03300 (GRPO); `none` is arXiv 2503.20783 (Dr. GRPO)."""
    grouped = rewards.view(-1, group_size)
    centred = grouped - grouped.nanmean(dim=1, keepdim=True)
    if scale == "group":
        centred = centred / (_deviation(centred, dim=1) + EPSILON)
    elif scale == "batch":
        centred = centred / (_deviation(rewards.view(1, -1) - rewards.nanmean(), dim=1) + EPSILON)
    return centred.nan_to_num(nan=0.0).flatten()


def _deviation(centred: Tensor, dim: int) -> Tensor:
    """Standard deviation over what is not NaN (unbiased), keeping the dimension; 0 where fewer than two are scored."""
    count = (~centred.isnan()).sum(dim, keepdim=True)
    return (centred.square().nansum(dim, keepdim=True) / (count - 1).clamp(min=1)).sqrt()


def extra_loops(depths: Tensor, max_loops: int, min_depth: int = 1) -> Tensor:
    """d - t for the decision at loop t: the loops that follow from it. `depths` [...] -> fp32 [T - 1, ...], 0 where none was taken."""
    loops = torch.arange(1, max_loops, device=depths.device).view(-1, *[1] * depths.dim())
    return ((depths - loops) * decision_mask(max_loops, depths, min_depth)).float()


def gate_returns(advantages: Tensor, depths: Tensor, max_loops: int, price: float, min_depth: int = 1) -> Tensor:
    """What each decision of the gate earned: A - price * ((d - t) - mean of it over the decisions at loop t).

    `advantages` [n], `depths` [n, C] with `NO_DEPTH` at padding -> [n, C, T - 1], 0 where no decision was taken. The price is paid
    for the loops that a decision caused (its cost to go); the mean over the batch is the baseline."""
    taken = decision_mask(max_loops, depths, min_depth)
    extra = extra_loops(depths, max_loops, min_depth)
    baseline = extra.sum((1, 2)) / taken.sum((1, 2)).clamp(min=1)
    returns = advantages.view(1, -1, 1) - price * (extra - baseline.view(-1, 1, 1))
    return (returns * taken).permute(1, 2, 0)
