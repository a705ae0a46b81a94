"""Which units wait, which are in flight with which worker, and which have lost their workers."""

from __future__ import annotations

import math
from collections import Counter, deque
from collections.abc import Iterable
from dataclasses import dataclass

from rollout_workers.fleet.units import Unit

SHARED_LOSSES = 2
"""After so many losses in company a unit runs alone on its worker: if that dies again, it is known which unit does
it."""


@dataclass(frozen=True, kw_only=True)
class Policy:
    """How much a worker is given at a time."""

    most_samples: int
    """Samples that a worker holds at most."""
    held_back: float
    """The part of a worker's even share of the unfinished samples that waits until somebody is free, 0..1. Nothing is
    gained by holding back where a batch costs the same for any number of samples."""
    tries: int
    """A unit is set aside after it was lost so many times alone."""


class Ledger:
    """Units wait in order; lost ones come first. Every unit ends finished or set aside."""

    def __init__(self, units: Iterable[Unit], workers: int, policy: Policy):
        self.policy, self.workers = policy, workers
        self.waiting: deque[Unit] = deque(units)
        self.suspects: deque[Unit] = deque()
        """Lost `SHARED_LOSSES` times in company: they wait for a worker that has nothing else."""
        self.in_flight: list[list[Unit]] = [[] for _ in range(workers)]
        self.unfinished = sum(map(len, self.waiting))
        """Samples that wait or are in flight."""
        self._shared: Counter[Unit] = Counter()
        self._alone: Counter[Unit] = Counter()

    def window(self) -> int:
        """Samples that a worker may hold now: fewer towards the end, so that all workers end at about the same time."""
        share = self.unfinished * (1 - self.policy.held_back) / self.workers
        return max(1, min(self.policy.most_samples, math.ceil(share)))

    def next_for(self, worker: int) -> Unit | None:
        """Take the next unit for a worker, which then has it in flight. None: it has enough, or nothing waits."""
        held = self.in_flight[worker]
        if any(self._is_suspect(unit) for unit in held):
            return None
        if self.suspects and not held:
            unit = self.suspects.popleft()
        elif self.waiting and (not held or sum(map(len, held)) + len(self.waiting[0]) <= self.window()):
            unit = self.waiting.popleft()
        else:
            return None
        held.append(unit)
        return unit

    def finish(self, worker: int, unit: Unit) -> None:
        self.in_flight[worker].remove(unit)
        self.unfinished -= len(unit)

    def lose(self, worker: int) -> list[Unit]:
        """Let the units of a lost worker wait again. Returns those that are set aside instead."""
        lost, self.in_flight[worker] = self.in_flight[worker], []
        if len(lost) == 1:
            return self._lose_alone(lost[0])
        self._shared.update(lost)
        for unit in reversed(lost):
            if self._is_suspect(unit):
                parts = list(unit.by_request())
                self._shared.update(dict.fromkeys(parts, SHARED_LOSSES))
                self.suspects.extend(parts)
            else:
                self.waiting.appendleft(unit)
        return []

    def _lose_alone(self, unit: Unit) -> list[Unit]:
        parts = list(unit.by_request())
        if len(parts) > 1:  # one of them did it
            self._shared.update(dict.fromkeys(parts, SHARED_LOSSES))
            self.suspects.extend(parts)
            return []
        self._alone[unit] += 1
        if self._alone[unit] >= self.policy.tries:
            self.unfinished -= len(unit)
            return [unit]
        (self.suspects if self._is_suspect(unit) else self.waiting).appendleft(unit)
        return []

    def _is_suspect(self, unit: Unit) -> bool:
        return self._shared[unit] >= SHARED_LOSSES or self._alone[unit] > 0
