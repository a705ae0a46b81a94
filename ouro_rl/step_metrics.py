"""The figures of one update, collected from wherever they arise."""

from __future__ import annotations


class StepMetrics:
    """`set`, `add`, `largest` and `mean` collect by name; `take` hands everything over and starts anew."""

    def __init__(self) -> None:
        self.values: dict[str, float] = {}
        self.weights: dict[str, float] = {}

    def set(self, name: str, value: float) -> None:
        self.values[name] = value

    def update(self, values: dict[str, float]) -> None:
        self.values.update(values)

    def add(self, name: str, value: float) -> None:
        self.values[name] = self.values.get(name, 0.0) + value

    def largest(self, name: str, value: float) -> None:
        self.values[name] = max(self.values.get(name, value), value)

    def mean(self, name: str, value: float, weight: float) -> None:
        total = self.weights.get(name, 0.0) + weight
        self.values[name] = (self.values.get(name, 0.0) * (total - weight) + value * weight) / max(total, 1e-12)
        self.weights[name] = total

    def seconds_of_rollout(self) -> float:
        return sum(self.values.get(name, 0.0) for name in ("time/rollout_s", "time/reward_s", "time/sync_s"))

    def take(self) -> dict[str, float]:
        values, self.values, self.weights = self.values, {}, {}
        return values
