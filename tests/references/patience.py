"""Waiting and measuring on a machine that may be busy: no test fails for lack of CPU time."""

from __future__ import annotations

import resource
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

HANG_S = 300.0
"""Seconds. Nothing takes this long, even on a busy machine: what has not finished by then hangs."""
_LOOK_S = 0.02


def comes_true(condition: Callable[[], object]) -> bool:
    """Wait for a condition; returns whether it came true in time."""
    end = time.monotonic() + HANG_S
    while not condition():
        if time.monotonic() >= end:
            return False
        time.sleep(_LOOK_S)
    return True


class Spent:
    """Seconds of CPU time, set on leaving the block."""

    seconds: float


@contextmanager
def processor_time() -> Iterator[Spent]:
    """CPU time spent in the block by this process and by its children that end in the block."""
    spent, before = Spent(), _used()
    yield spent
    spent.seconds = _used() - before


def _used() -> float:
    parts = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(part.ru_utime + part.ru_stime for part in parts)
