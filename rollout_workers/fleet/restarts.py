"""When a worker that died is started again, and when there is no point in it."""

from __future__ import annotations

LONGEST_PAUSE_S = 30.0
DEATHS_IN_A_ROW = 8
"""Deaths of any workers, with nothing finished in between, after which the run stops."""


class Restarts:
    """Deaths of the workers of a pool. The first restart of a worker is immediate; while it finishes nothing, the pause
    before each further one doubles."""

    def __init__(self, workers: int):
        self.by_worker = [0] * workers
        """Deaths of each worker since it finished something."""
        self.in_a_row = 0
        """Deaths of any worker since one finished something, or its prompt was set aside."""

    def pause(self, worker: int) -> float:
        """Note a death. Returns the seconds until the worker is to be started again."""
        self.by_worker[worker] += 1
        self.in_a_row += 1
        earlier = self.by_worker[worker] - 1
        return min(LONGEST_PAUSE_S, 2.0 ** (earlier - 1)) if earlier else 0.0

    @property
    def hopeless(self) -> bool:
        return self.in_a_row >= DEATHS_IN_A_ROW

    def finished(self, worker: int) -> None:
        """A worker has finished a unit."""
        self.by_worker[worker] = self.in_a_row = 0

    def explained(self) -> None:
        """A prompt was set aside, which explains the deaths before."""
        self.in_a_row = 0
