"""Credits of rollouts that earned nothing: for tests of the replay alone."""

from collections.abc import Sequence

import torch

from ouro_rl.core.rollout import Rollout
from ouro_rl.training.objective.records import Credits


def no_credits(rollouts: Sequence[Rollout], max_loops: int) -> Credits:
    count, longest = len(rollouts), max(len(rollout.completion_ids) for rollout in rollouts)
    return Credits(
        advantages=torch.zeros(count, longest),
        gate_returns=torch.zeros(count, longest, max_loops - 1),
        gate_advantages=torch.zeros(count, longest),
        loop_prices=torch.zeros(count, longest),
        stay_costs=torch.zeros(count, max_loops - 1),
        hazards=torch.full((count, max_loops - 1), 0.5),
        by_gate=torch.ones(count, dtype=torch.bool),
        of_rollouts=torch.zeros(count),
    )
