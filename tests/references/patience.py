"""Waiting and measuring on a machine that may be busy with other things: no test fails for want of a processor."""

from __future__ import annotations

import resource
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

HANG_S = 300.0
"""Seconds that nothing takes, however busy the machine is: what is not there by then hangs."""
_LOOK_S = 0.02


def comes_true(condition: Callable[[], object]) -> bool:
    """Whether a condition comes true; waits for it."""
    end = time.monotonic() + HANG_S
    while not condition():
        if time.monotonic() >= end:
            return False
        time.sleep(_LOOK_S)
    return True


class Spent:
    """Seconds of processor time, set when the block is left."""

    seconds: float


@contextmanager
def processor_time() -> Iterator[Spent]:
    """What is spent in the block by this process, and by those of its children that end in it."""
    spent, before = Spent(), _used()
    yield spent
    spent.seconds = _used() - before


def _used() -> float:
    parts = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(part.ru_utime + part.ru_stime for part in parts)
