"""Grades finished rollouts in the background while others are still being sampled, and hands the answers on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from queue import SimpleQueue
from typing import Self

from ouro_rl.core.rollout import Rollout

MOST_AT_ONCE = 128
Finished = tuple[int, Rollout]
"""Place among all rollouts, and the rollout."""


class Grading:
    """A context manager around one call of a pool: `add` is its `on_rollout`, `finish` gets what it returned.

    `grade` gets what has finished since its last call. What it raises is raised by `finish`."""

    def __init__(self, grade: Callable[[list[Finished]], None]):
        self._grade = grade
        self._queue: SimpleQueue[Finished | None] = SimpleQueue()
        self._added: set[int] = set()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="grading")
        self._work = self._thread.submit(self._run)

    def add(self, place: int, rollout: Rollout) -> None:
        if place not in self._added:
            self._added.add(place)
            self._queue.put((place, rollout))

    def finish(self, rollouts: Sequence[Rollout]) -> None:
        """Grade what `add` did not get, and wait until everything is graded."""
        for place, rollout in enumerate(rollouts):
            self.add(place, rollout)
        self._queue.put(None)
        self._work.result()

    def _run(self) -> None:
        while True:
            batch = [self._queue.get()]
            while not self._queue.empty() and len(batch) < MOST_AT_ONCE:
                batch.append(self._queue.get())
            if finished := [item for item in batch if item is not None]:
                self._grade(finished)
            if None in batch:
                return

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._queue.put(None)  # also after an error or an interrupt: what has finished is kept
        self._thread.shutdown(wait=True)
