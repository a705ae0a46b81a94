"""The metrics of one update, collected over its duration.

When a batch of rollouts is used for several updates, each update's row of `metrics.jsonl` contains the metrics of the
batch; the time spent on it is counted in the first row only (0 in the others). `logp_gap/*`, which compares worker and
trainer at equal weights, is only in the first row: later updates are off-policy by design. The seconds of sampling are
those of the workers; what of them the trainer did not wait for is `time/overlapped_s`.
"""

from __future__ import annotations

SPENT_ON_ROLLOUTS = ("time/rollout_s", "time/reward_s", "time/sync_s")
OVERLAPPED = "time/overlapped_s"


class StepMetrics:
    """`set`, `add`, `largest` and `mean` collect values by name; `take` returns all of them and resets, except for the
    metrics of the current batch."""

    def __init__(self) -> None:
        self.batch: dict[str, float] = {}
        self.values: dict[str, float] = {}
        self.weights: dict[str, float] = {}

    def new_batch(self, values: dict[str, float]) -> None:
        """Replace the batch metrics by those of a new batch of rollouts."""
        self.batch = dict(values)

    def describe(self, values: dict[str, float]) -> None:
        """Add metrics of the current batch."""
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
        """How long the trainer has waited for rollouts."""
        spent = sum(self.values.get(name, 0.0) for name in SPENT_ON_ROLLOUTS)
        return spent - self.values.get(OVERLAPPED, 0.0)

    def take(self) -> dict[str, float]:
        values = {**dict.fromkeys((*SPENT_ON_ROLLOUTS, OVERLAPPED), 0.0), **self.batch, **self.values}
        self.values, self.weights = {}, {}
        return values
