"""Checks gold answers against themselves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rewards.math_grader.reward import MathReward


def check_golds(golds: Sequence[Any], *, workers: int = 2, kwargs: Mapping[str, Any] | None = None) -> dict[int, str]:
    """Gold answers that the `math` reward cannot grade against, by index, with the reason: leave them out, they can only
    mislead. See `MathReward.unusable_golds`. kwargs: the reward's own."""
    reward = MathReward(workers=workers, **{"timeout_s": 10.0, **(kwargs or {})})
    try:
        return reward.unusable_golds(golds)
    finally:
        reward.close()
