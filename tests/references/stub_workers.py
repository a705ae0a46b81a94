"""Workers without processes, for tests of how work is given out: time is counted, not waited for."""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable, Sequence

from rollout_workers.fleet.member import Event, Finished, Lost
from rollout_workers.fleet.restarts import Restarts
from rollout_workers.fleet.units import Unit


class StubWorkers:
    """Each worker does one unit of its time after another, in the order in which they came. `seconds(unit)` is how long
    a unit takes; `kills(worker, units, rng)` whether the worker dies before it finishes the first of its units."""

    def __init__(
        self,
        count: int,
        seconds: Callable[[Unit], float],
        kills: Callable[[int, Sequence[Unit], random.Random], bool] = lambda *_: False,
        seed: int = 0,
        restart_s: float = 5.0,
    ):
        self.restarts = Restarts(count)
        self.seconds, self.kills, self.rng, self.restart_s = seconds, kills, random.Random(seed), restart_s
        self.now = 0.0
        self.held: list[list[Unit]] = [[] for _ in range(count)]
        self.busy = [0.0] * count
        self.away = [False] * count
        self.given: list[tuple[int, Unit]] = []
        self.deaths = 0
        self._ends: list[tuple[float, int, int, str]] = []
        self._started = [0.0] * count

    def ready(self) -> list[int]:
        return [worker for worker, away in enumerate(self.away) if not away]

    def give(self, worker: int, unit: Unit, *_: object) -> None:
        self.given.append((worker, unit))
        self.held[worker].append(unit)
        if len(self.held[worker]) == 1:
            self._begin(worker)

    def poll(self, seconds: float) -> list[Event]:
        assert self._ends, "nothing is in flight and nobody is coming back"
        self.now, _, worker, what = heapq.heappop(self._ends)
        if what == "back":
            self.away[worker] = False
            return []
        self.busy[worker] += self.now - self._started[worker]
        if what == "dies":
            self.held[worker] = []
            self.deaths += 1
            self.away[worker] = True
            self._at(self.now + self.restart_s + self.restarts.pause(worker), worker, "back")
            return [Lost(worker=worker, why="a test")]
        unit = self.held[worker].pop(0)
        self.restarts.finished(worker)
        if self.held[worker]:
            self._begin(worker)
        return [Finished(worker=worker, unit=unit, rollouts=list(unit.places))]

    def _begin(self, worker: int) -> None:
        self._started[worker] = self.now
        spent = self.seconds(self.held[worker][0])
        dies = self.kills(worker, self.held[worker], self.rng)
        self._at(self.now + (spent * self.rng.random() if dies else spent), worker, "dies" if dies else "ends")

    def _at(self, when: float, worker: int, what: str) -> None:
        heapq.heappush(self._ends, (when, len(self.given) + self.deaths, worker, what))
