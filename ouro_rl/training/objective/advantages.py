"""Advantages of completions, from rewards alone: relative to their group."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ouro_rl.core.errors import RunError

EPSILON = 1e-4
"""Keeps the division by a group's standard deviation finite (TRL's value)."""
SMALLEST_SCALE = 0.1
"""Of a group, as a share of the mean of all: charges are divided by no less."""
LARGEST_EXPONENT = 1023
"""Of the powers of two that fp64 holds."""


def group_advantages(rewards: Tensor, group_size: int, scale: str) -> Tensor:
    """Reward minus its group's mean, divided by the standard deviation of the group or the batch -> fp32 [n].

    `rewards` [n]: groups are consecutive rows; NaN means unscored, which is left out of mean and deviation and gets
    advantage 0. Equal rewards give exactly 0. Computed in fp64, relative to the largest reward, so that rewards of any
    size have finite squares; raises RunError for an advantage that fp32 cannot hold. `scale`: `group`, `batch` or
    `none`. arXiv 2402.03300 (GRPO); `none` is arXiv 2503.20783 (Dr. GRPO)."""
    centered, deviations, unit = _centered_by_group(rewards, group_size, scale)
    centered = centered * unit if scale == "none" else centered / (deviations + EPSILON / unit)
    advantages = centered.nan_to_num(nan=0.0, posinf=torch.inf, neginf=-torch.inf).flatten().float()
    if not advantages.isfinite().all():
        largest = rewards.nan_to_num(nan=0.0).abs().max().item()
        raise RunError(
            f"rewards of up to {largest:.3g} give advantages that fp32 cannot hold; "
            "lower the rewards' weights, or set trainer.scale_rewards to group"
        )
    return advantages


def reward_scales(rewards: Tensor, group_size: int, scale: str) -> Tensor:
    """What `group_advantages` divides each reward by, fp32 [n]: charges in units of reward are divided by it, too.

    Nothing divides the rewards of a group without variance, since all its advantages are 0; its charges are divided by
    the mean of the others, or by 1 where no group has any. A deviation of up to `EPSILON` is none: it may be rounding.
    Where it is small beside the mean, charges are not blown up as differences of rewards are (`SMALLEST_SCALE`)."""
    if scale == "none":
        return torch.ones(len(rewards), device=rewards.device)
    centered, deviations, unit = _centered_by_group(rewards, group_size, scale)
    deviations = deviations * unit
    varied = deviations > EPSILON
    if not varied.any():
        return torch.ones(len(rewards), device=rewards.device)
    mean = deviations[varied].mean() + EPSILON
    scales = torch.where(varied, (deviations + EPSILON).clamp(min=SMALLEST_SCALE * mean), mean)
    return scales.expand(centered.shape).flatten().float()


def _centered_by_group(rewards: Tensor, group_size: int, scale: str) -> tuple[Tensor, Tensor, Tensor]:
    """Rewards minus their group's mean [g, n] and standard deviations, both in fp64 and in units of a power of two, and
    that unit. Deviations and unit are of every group [g, 1], or of all rewards [1, 1]."""
    rows = rewards.double().view(-1, group_size)
    unit = _powers_of_two(rows if scale == "group" else rows.view(1, -1))
    grouped = rows / unit  # exact
    centered = _centered(grouped)
    return centered, _deviation(centered if scale == "group" else _centered(grouped.view(1, -1))), unit


def _centered(rows: Tensor) -> Tensor:
    """Minus the mean of each row; the mean of equal numbers may be rounded, that of zeros is not."""
    shifted = rows - _smallest(rows)
    return shifted - shifted.nanmean(dim=1, keepdim=True)


def _powers_of_two(rows: Tensor) -> Tensor:
    """For every row [g, n] a power of two above its values, [g, 1]: dividing by it is exact. NaN does not count."""
    exponents = [math.frexp(largest)[1] for largest in rows.abs().nan_to_num(nan=0.0).amax(1).tolist()]
    powers = [math.ldexp(1.0, min(exponent, LARGEST_EXPONENT)) for exponent in exponents]
    return torch.tensor(powers, dtype=torch.float64, device=rows.device).unsqueeze(1)


def _smallest(grouped: Tensor) -> Tensor:
    """The smallest scored value of every group, keeping the dimension; 0 where there is none."""
    smallest = grouped.nan_to_num(nan=torch.inf).amin(1, keepdim=True)
    return smallest.where(smallest.isfinite(), 0.0)


def _deviation(centered: Tensor) -> Tensor:
    """Unbiased standard deviation of every row, keeping the dimension, without NaN; 0 if fewer than two are scored."""
    count = (~centered.isnan()).sum(1, keepdim=True)
    return (centered.square().nansum(1, keepdim=True) / (count - 1).clamp(min=1)).sqrt()


def only_best(rewards: Tensor, loops: Tensor, group_size: int, keep: int) -> Tensor:
    """`rewards` [n] of the `keep` completions of each group with the most reward per loop, NaN for the others.

    `loops` [n]: loops of each completion. Equal ones: the one that comes first. GFPO, arXiv 2508.09726: the others get
    advantage 0 and do not count in the group's mean and deviation."""
    worth = (rewards / loops).nan_to_num(nan=-torch.inf).view(-1, group_size)
    order = worth.argsort(dim=1, descending=True, stable=True)
    kept = torch.zeros_like(worth, dtype=torch.bool).scatter(1, order[:, :keep], True).flatten()
    return torch.where(kept, rewards, torch.nan)
