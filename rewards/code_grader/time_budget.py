"""Time limits of a program. On a busy machine, the limits are extended while the program is waiting for a CPU."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from rewards.sandbox.host import Child

Result = TypeVar("Result")
PATIENCE = 5
"""Upper bound of a program's wall time, as a multiple of its limit, on a busy machine."""
_IDLE = 0.1
"""A child whose CPU time is below this fraction of the time since its start is considered asleep, not starved."""


@dataclass(frozen=True, kw_only=True)
class Times:
    """Time limits in seconds."""

    test_s: float
    """Limit per test; loading the program counts as one test."""
    program_s: float
    """Limit per program with all its tests."""


class Budget:
    """The deadlines of one program, on time.monotonic's clock."""

    def __init__(self, times: Times) -> None:
        self._times = times
        self._last = time.monotonic() + PATIENCE * times.program_s
        self._end = time.monotonic() + times.program_s
        self.deadline = self._end

    def next_test(self) -> None:
        """Start the time of a new test."""
        self.deadline = min(self._end, time.monotonic() + self._times.test_s)

    def over(self, child: Child | None = None) -> bool:
        """Whether the time for the whole program has run out."""
        if time.monotonic() < self._end:
            return False
        self.deadline = self._end
        return child is None or not self._extend(child)

    def wait(self, child: Child, action: Callable[[float], Result]) -> Result:
        """Run `action(deadline)`, which waits for the child; repeat it with a later deadline as long as the child was
        starved of CPU time. Raises TimeoutError."""
        while True:
            try:
                return action(self.deadline)
            except TimeoutError:
                if not self._extend(child):
                    raise

    def _extend(self, child: Child) -> bool:
        now, used = time.monotonic(), child.processor_s()
        limit = self._times.program_s if self.deadline >= self._end else self._times.test_s
        if now >= self._last or used >= limit or used < _IDLE * (now - child.started):
            return False
        self.deadline = min(self._last, now + max(0.05, limit - used))
        self._end = max(self._end, self.deadline)
        return True
