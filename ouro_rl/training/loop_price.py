"""The price of a loop, moved by a controller until a target depth is met."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class PriceRule:
    """How the price of a loop moves: a constant, or drawn towards a mean depth; both warm up from 0.

    With a target, the price is a dual variable (it rises while tokens are deeper than the target, and falls while they are not)
    plus a part in proportion to the distance: depth follows the price late, and the dual alone would overshoot."""

    start: float
    warmup: int
    target_depth: float | None
    rate: float
    gain: float
    largest: float

    def next_dual(self, dual: float, mean_depth: float) -> float:
        """Dual ascent on E[depth] <= target: the price rises while tokens are deeper than the target."""
        if self.target_depth is None:
            return dual
        return min(self.largest, max(0.0, dual + self.rate * (mean_depth - self.target_depth)))

    def price(self, dual: float, mean_depth: float, step: int) -> float:
        """What is charged at `step` (from 0), when tokens are `mean_depth` deep."""
        pull = 0.0 if self.target_depth is None else self.gain * (mean_depth - self.target_depth)
        return min(self.largest, max(0.0, dual + pull)) * min(1.0, (step + 1) / (self.warmup + 1))
