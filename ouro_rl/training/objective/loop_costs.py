"""What loops cost: who pays, for which loops, against which baseline. Pure functions of rewards and depths.

N rollouts (groups are consecutive), C tokens, T loops. Costs are in loops; the price, in units of reward per loop,
multiplies them in `Objective.credit`."""

from __future__ import annotations

import torch
from torch import Tensor

from ouro_rl.model.policy.exit_gate import decision_mask


def payment_weights(
    rewards: Tensor, finished: Tensor, group_size: int, *, solved_reward: float, solved_only: bool
) -> Tensor:
    """The share of the price that each rollout pays, [N]: its group's solve rate, or 0.

    `rewards` [N], NaN for unscored; `finished` bool [N]. The solve rate is the share of scored rollouts with a reward
    of `solved_reward` or more (ALP, arXiv 2506.05256): where nothing was right, loops are free. Unscored and unfinished
    rollouts pay nothing, nor, with `solved_only`, do those that are not solved."""
    scored = ~rewards.isnan()
    solved = rewards >= solved_reward  # False for NaN
    grouped = solved.view(-1, group_size).sum(1) / scored.view(-1, group_size).sum(1).clamp(min=1)
    pays = (solved if solved_only else scored) & finished
    return (grouped.repeat_interleave(group_size) * pays).float()


def extra_loops(depths: Tensor, max_loops: int, min_depth: int = 1, floor: int = 1) -> Tensor:
    """max(d, floor) - max(t, floor) for the decision at loop t: the loops run after it, those up to `floor` free.

    `depths` [...] -> fp32 [T - 1, ...], 0 where no decision was made."""
    loops = torch.arange(1, max_loops, device=depths.device).view(-1, *[1] * depths.dim())
    extra = depths.clamp(min=floor) - loops.clamp(min=floor)
    return (extra * decision_mask(max_loops, depths, min_depth)).float()


def mean_extra(extra: Tensor, counted: Tensor, weights: Tensor) -> Tensor:
    """Mean of `extra` [T - 1, N, C] over the decisions at each loop where `counted` (bool, same shape), [T - 1].

    Each decision counts with its rollout's weight [N]; 0 at a loop without any."""
    shares = counted * weights.view(1, -1, 1)
    return (extra * shares).sum((1, 2)) / shares.sum((1, 2)).clamp(min=torch.finfo(torch.float32).tiny)


def loops_to_come(depths: Tensor) -> Tensor:
    """Loops of the tokens that follow each token, `depths` [N, C] -> fp32 [N, C]."""
    return (depths.sum(1, keepdim=True) - depths.cumsum(1)).float()


def excess_to_come(depths: Tensor, paying: Tensor, group_size: int) -> Tensor:
    """Loops of the tokens that follow each token, minus those that follow the same position in the others, [N, C].

    The mean is over the other rollouts of the group that pay (`paying` bool [N]); one that has ended there has none to
    come. 0 for rollouts that do not pay, and without others to compare with."""
    following = loops_to_come(depths).view(-1, group_size, depths.shape[1])
    counted = paying.view(-1, group_size, 1).float()
    others = counted.sum(1, keepdim=True) - counted
    mean = ((following * counted).sum(1, keepdim=True) - following * counted) / others.clamp(min=1)
    return ((following - mean) * counted * (others > 0)).view(depths.shape)


def exit_hazards(depths: Tensor, counted: Tensor, max_loops: int, min_depth: int = 1) -> Tensor:
    """Share of the decisions at each loop that were exits, [T - 1]: the exit gate of the mean token.

    `depths` [N, C]; `counted` bool [N]. Half an exit and half a stay are added (Krichevsky and Trofimov), so that no
    logarithm is infinite."""
    made = decision_mask(max_loops, depths, min_depth) & counted.view(1, -1, 1)
    loops = torch.arange(1, max_loops, device=depths.device).view(-1, 1, 1)
    return ((made & (depths == loops)).sum((1, 2)) + 0.5) / (made.sum((1, 2)) + 1.0)
