"""Whether the controller of the price met its target, from the training curves of a study's arms."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from ouro_rl.run_dir.study_result import StudyResult

SETTLED_UPDATES = 50
"""Last updates of a run, over whose mean the target should be met."""
WINDOW = 10
"""Updates of the moving mean of which the overshoot is taken: single updates are noisy."""
CURVES = {"target_loops": "compute/loops_per_answer", "target_depth": "depth/mean"}
"""Keys of `gate` that set a target, and the metric that it is about."""


@dataclass(frozen=True, kw_only=True)
class TargetOutcome:
    """How one run met its target."""

    target: float
    reached: float
    """Mean of the last `SETTLED_UPDATES` updates."""
    opened: int
    """Updates before the first price: until then, nothing controls the loops."""
    overshoot: float
    """How far the moving mean then went beyond the target, seen from where it was, as a share of the target."""


def target_outcome(result: StudyResult) -> TargetOutcome | None:
    """None for a run without a target, or with a frozen gate."""
    gate = result.settings.get("train", {}).get("gate", {})
    if gate.get("mode") != "policy":
        return None
    curves = result.training.get("curves", {})
    for key, metric in CURVES.items():
        curve = curves.get(metric, [])
        if (target := gate.get(key)) is not None and (whole := measured(curve)):
            opened = first_price(curves.get("gate/price", []))
            return TargetOutcome(
                target=target,
                reached=statistics.fmean(whole[-SETTLED_UPDATES:]),
                opened=opened,
                overshoot=overshoot(measured(curve[opened:]) or whole[-1:], target),
            )
    return None


def measured(curve: Sequence[float | None]) -> list[float]:
    """Without the updates that have no figure."""
    return [value for value in curve if value is not None]


def first_price(prices: Sequence[float | None]) -> int:
    """Updates before the first whose price is not 0; all, if none is."""
    return next((update for update, price in enumerate(prices) if price), len(prices))


def overshoot(curve: Sequence[float], target: float) -> float:
    """As in `TargetOutcome`, of measured loops by update."""
    size = min(WINDOW, len(curve))
    means = [statistics.fmean(curve[end - size : end]) for end in range(size, len(curve) + 1)]
    beyond = target - min(means) if curve[0] > target else max(means) - target
    return max(0.0, beyond / target)
