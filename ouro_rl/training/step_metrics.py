"""The figures of one update, collected from wherever they arise.

A row of `metrics.jsonl` is whole also where a batch of rollouts is used for several updates: figures of the batch stand in each of
their rows (what was spent on it in the first one only, 0 in the others). What compares worker and trainer at equal weights,
`logp_gap/*`, stands in the first row alone: later updates are off-policy by design.
"""

from __future__ import annotations

SPENT_ON_ROLLOUTS = ("time/rollout_s", "time/reward_s", "time/sync_s")


class StepMetrics:
    """`set`, `add`, `largest` and `mean` collect by name; `take` hands everything over and starts anew, but for what it was
    told of the batch in hand."""

    def __init__(self) -> None:
        self.batch: dict[str, float] = {}
        self.values: dict[str, float] = {}
        self.weights: dict[str, float] = {}

    def new_batch(self, values: dict[str, float]) -> None:
        """Figures of a fresh batch of rollouts, in place of the last one's."""
        self.batch = dict(values)

    def describe(self, values: dict[str, float]) -> None:
        """More of them."""
        self.batch.update(values)

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
        return sum(self.values.get(name, 0.0) for name in SPENT_ON_ROLLOUTS)

    def take(self) -> dict[str, float]:
        values = {**dict.fromkeys(SPENT_ON_ROLLOUTS, 0.0), **self.batch, **self.values}
        self.values, self.weights = {}, {}
        return values
