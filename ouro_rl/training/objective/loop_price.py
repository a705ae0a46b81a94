"""The price per loop, adjusted by a controller until the mean depth meets its target."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class PriceRule:
    """How the price per loop moves: constant, or controlled toward a target mean depth; both warm up from 0.

    With a target, the price is a dual variable (it rises while tokens are deeper than the target and falls otherwise)
    plus a proportional term: depth responds to the price with a delay, and the dual variable alone would overshoot."""

    start: float
    warmup: int
    target_depth: float | None
    rate: float
    gain: float
    largest: float

    def next_dual(self, dual: float, mean_depth: float) -> float:
        """Dual ascent on E[depth] <= target: the dual rises while tokens are deeper than the target."""
        if self.target_depth is None:
            return dual
        return min(self.largest, max(0.0, dual + self.rate * (mean_depth - self.target_depth)))

    def price(self, dual: float, mean_depth: float, step: int) -> float:
        """The price per loop at `step` (from 0), given the current mean depth."""
        pull = 0.0 if self.target_depth is None else self.gain * (mean_depth - self.target_depth)
        return min(self.largest, max(0.0, dual + pull)) * min(1.0, (step + 1) / (self.warmup + 1))
