"""Checks whether gold answers can be graded against."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rewards.math_grader.reward import MathReward


def check_golds(golds: Sequence[Any], *, workers: int = 2, kwargs: Mapping[str, Any] | None = None) -> dict[int, str]:
    """Gold answers that the `math` reward cannot grade against, as index -> reason. Leave them out of training, since
    they can only mislead it. See `MathReward.unusable_golds`. kwargs: options of the reward."""
    reward = MathReward(workers=workers, **{"timeout_s": 10.0, **(kwargs or {})})
    try:
        return reward.unusable_golds(golds)
    finally:
        reward.close()
