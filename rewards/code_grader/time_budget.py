"""How long a program may take. On a machine that is busy with other things, time does not run out for lack of a processor."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from rewards.sandbox.host import Child

Result = TypeVar("Result")
PATIENCE = 5
"""A program's wall time is at most this many times its limit, however busy the machine is."""
_IDLE = 0.1
"""A child that has had less than this share of the time since its start was not short of a processor: it slept."""


@dataclass(frozen=True, kw_only=True)
class Times:
    """Seconds."""

    test_s: float
    """For one test; loading the program counts as one."""
    program_s: float
    """For a program with all its tests."""


class Budget:
    """The deadlines of one program, on time.monotonic's clock."""

    def __init__(self, times: Times) -> None:
        self._times = times
        self._last = time.monotonic() + PATIENCE * times.program_s
        self._end = time.monotonic() + times.program_s
        self.deadline = self._end

    def next_test(self) -> None:
        """A new test begins: its time counts from now."""
        self.deadline = min(self._end, time.monotonic() + self._times.test_s)

    def over(self, child: Child | None = None) -> bool:
        """Whether the time for the whole program is up."""
        if time.monotonic() < self._end:
            return False
        self.deadline = self._end
        return child is None or not self._extend(child)

    def wait(self, child: Child, action: Callable[[float], Result]) -> Result:
        """`action(deadline)`, again with a later deadline as long as the child, on which it waits, was kept from working.
        Raises TimeoutError."""
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
