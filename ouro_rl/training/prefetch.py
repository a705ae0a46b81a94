"""Batches of rollouts, in turns with the updates or sampled ahead of them.

Batch n is first used when the policy has version n K (K: `trainer.updates_per_batch`). With A batches ahead
(A = `trainer.max_staleness` // K) it is sampled with the weights of version max(0, n - A) K: those of the moment when
the trainer asks for batch n - A. So the weights that sample a batch follow from its number, however fast workers and
trainer are, and a run is reproducible at any staleness.

Batches are sampled one after the other, in the order of their numbers. New weights wait until the batches before them
are complete: they never change under a sample. With weights in flight (`trainer.in_flight`) they do not wait, and reach
whatever is under way; what that is depends on the clock, so no seed repeats such a run, but its rollouts say which
weights drew which token.
"""

from __future__ import annotations

import functools
import threading
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from ouro_rl.core.errors import RunError
from ouro_rl.core.rollout import Prompt, ScoredRollout

if TYPE_CHECKING:
    from torch import Tensor

RolloutSource = Callable[[Sequence[Prompt], int], tuple[list[ScoredRollout], dict[str, float]]]
"""(prompts, step) -> scored rollouts, group by group, and timings by metric name; called on the main process only, by
one thread at a time."""
Publish = Callable[[Mapping[str, "Tensor"], int], None]
"""(weights, version): gives them to the rollout workers."""


@dataclass(frozen=True, kw_only=True)
class SampledBatch:
    """A batch of rollouts that was sampled and scored."""

    number: int
    """Counted from 0, over the whole run."""
    version: int
    """Policy version of the weights that sampled it; with weights in flight, that of the oldest that may have."""
    scored: list[ScoredRollout]
    timings: dict[str, float]
    """Those of the rollout source, and of the prefetcher: `time/sync_s`, seconds of giving the weights to the workers.
    Once it is taken, also `time/overlapped_s`, the seconds of all this in which the trainer did something else;
    `workers/busy`, the share of the time since the last batch in which rollouts were sampled and scored; and
    `staleness/dropped`, rollouts of a checkpoint that could not be used."""
    seconds: float
    """From the start of the publication to the last score."""


class Prefetcher:
    """Samples the `batches` of a run, up to `max_staleness // updates_per_batch` of them ahead of the trainer.

    With none ahead, everything runs in the caller's thread, when the batch is asked for; otherwise in a thread of its
    own, which works on copies of the weights. `in_flight` publishes weights that rollouts under way are to go on with;
    None: they end with those that they began with."""

    def __init__(
        self,
        source: RolloutSource,
        publish: Publish,
        *,
        prompts_of: Callable[[int], Sequence[Prompt]],
        batches: int,
        updates_per_batch: int,
        max_staleness: int,
        in_flight: Publish | None = None,
    ):
        self.source, self.publish, self.prompts_of = source, publish, prompts_of
        self.batches, self.updates_per_batch, self.max_staleness = batches, updates_per_batch, max_staleness
        self.ahead, self.in_flight = max_staleness // updates_per_batch, in_flight
        self._results: dict[int, Callable[[], SampledBatch]] = {}
        """By number, what waits for a batch that was begun and not taken yet."""
        self._futures: dict[int, Future[SampledBatch]] = {}
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="prefetch") if self.ahead else None
        self._published: int | None = None
        self._dropped = 0
        self._busy = BusyTime()

    def take(self, number: int, weights: Mapping[str, Tensor], version: int) -> SampledBatch:
        """Batch `number`, for a trainer whose policy has these weights and this version; begins to sample the batches
        that are due with them. Each batch is taken once, in the order of their numbers.

        Raises what the rollout source and the publication of the batch raised."""
        sync = self._publish_in_flight(weights, version)
        started = time.monotonic()
        last = min(number + self.ahead, self.batches - 1)
        due = [later for later in range(number, last + 1) if later not in self._results]
        if due and self.ahead and self.in_flight is None:
            weights = {name: tensor.detach().to("cpu", copy=True) for name, tensor in weights.items()}
        for later in due:
            self._begin(later, weights, version)
        batch = self._results.pop(number)()
        self._futures.pop(number, None)
        waited = time.monotonic() - started
        assert 0 <= version - batch.version <= self.max_staleness, "the lag follows from the numbers"
        timings = batch.timings | {
            "time/sync_s": batch.timings.get("time/sync_s", 0.0) + sync,
            "time/overlapped_s": max(0.0, batch.seconds - waited),
            "workers/busy": self._busy.share(),
            "staleness/dropped": self._dropped,
        }
        self._dropped = 0
        return replace(batch, timings=timings)

    def wait(self) -> list[SampledBatch]:
        """Wait until nothing is being sampled, and return what was begun and not taken, in order. A batch that failed
        is not among them: it raises its error when it is taken."""
        finished = [future for _, future in sorted(self._futures.items())]
        return [future.result() for future in finished if future.exception() is None]

    def restore(self, batches: Sequence[SampledBatch], prompts: Collection[int]) -> None:
        """Go on with what `wait` returned when the checkpoint was written. Batches that are too old for
        `max_staleness`, or of another prompt than these (their indices), are dropped and sampled again: both may have
        been changed."""
        for batch in batches:
            is_old = batch.number * self.updates_per_batch - batch.version > self.max_staleness
            if is_old or not all(item.rollout.prompt_index in prompts for item in batch.scored):
                self._dropped += len(batch.scored)
            else:
                self._keep(batch)

    def close(self) -> None:
        """Do not begin the batches that wait, and return when none is being sampled."""
        if self._thread is not None:
            self._thread.shutdown(wait=True, cancel_futures=True)

    def _publish_in_flight(self, weights: Mapping[str, Tensor], version: int) -> float:
        """The seconds that it took; 0 without weights in flight."""
        if self.in_flight is None:
            return 0.0
        started = time.monotonic()
        self._published = version  # first: rollouts may have them at once
        self.in_flight(weights, version)
        return time.monotonic() - started

    def _begin(self, number: int, weights: Mapping[str, Tensor], version: int) -> None:
        job = functools.partial(self._sample, number, self.prompts_of(number), weights, version)
        if self._thread is None:
            self._results[number] = job
        else:
            future = self._futures[number] = self._thread.submit(job)
            self._results[number] = future.result

    def _keep(self, batch: SampledBatch) -> None:
        """The time that it took was another process's."""
        timings = {name: value for name, value in batch.timings.items() if not name.startswith("time/")}
        future = self._futures[batch.number] = Future[SampledBatch]()
        future.set_result(replace(batch, timings=timings, seconds=0.0))
        self._results[batch.number] = future.result

    def _sample(
        self, number: int, prompts: Sequence[Prompt], weights: Mapping[str, Tensor], version: int
    ) -> SampledBatch:
        started = time.monotonic()
        if version != self._published and self.in_flight is None:
            self.publish(weights, version)
            self._published = version
        sync = time.monotonic() - started
        with self._busy:
            scored, timings = self.source(prompts, number * self.updates_per_batch + 1)
        newest = self._published
        assert newest is not None, "the weights were published before"
        odd = sorted(found for found in _versions(scored) if not version <= found <= newest)
        if odd:
            raise RunError(f"batch {number}: rollouts have policy version {odd[0]}, but {version} was published")
        seconds = time.monotonic() - started
        return SampledBatch(
            number=number, version=version, scored=scored, timings=timings | {"time/sync_s": sync}, seconds=seconds
        )


def _versions(scored: Sequence[ScoredRollout]) -> set[int]:
    """Of all weights that had a part in these rollouts."""
    rollouts = [item.rollout for item in scored]
    changes = (change.version for rollout in rollouts for change in rollout.weight_changes)
    return {*(rollout.policy_version for rollout in rollouts), *changes}


class BusyTime:
    """How long the blocks under it have run (`with`, in one thread at a time), as others ask."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._total = 0.0
        self._entered: float | None = None
        self._asked = time.monotonic(), 0.0

    def __enter__(self) -> None:
        with self._lock:
            self._entered = time.monotonic()

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._total, self._entered = self._until(time.monotonic()), None

    def share(self) -> float:
        """The share of the time since the last call (or the beginning) that a block ran."""
        with self._lock:
            now = time.monotonic()
            (before, busy_before), self._asked = self._asked, (now, self._until(now))
            return (self._asked[1] - busy_before) / max(now - before, 1e-9)

    def _until(self, now: float) -> float:
        return self._total + (now - self._entered if self._entered is not None else 0.0)
