"""The memory that an evaluation took, and what it is made of."""

from __future__ import annotations

import resource
import sys

from rollout_workers.pool import LocalPool, RolloutPool

GIB = 2**30
_UNIT = 1 if sys.platform == "darwin" else 1024
"""Bytes in a unit of `ru_maxrss`."""


def memory_line(pool: RolloutPool, parameters: int, weight_bytes: int) -> str:
    """Peak memory of this process and its largest parts, in one line. `weight_bytes`: of one copy of the weights. Where
    kernels keep weights in an order of their own, there is a second one; before that, there is the one from the file.
    With Ray, the workers' own memory is not in it."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * _UNIT
    parts = [f"one copy of {parameters:,} weights is {weight_bytes / GIB:.2f}"]
    if isinstance(pool, LocalPool):
        parts.append(f"keys and values {pool.worker.engine.stats.peak_bytes / GIB:.2f}")
    return f"Peak memory: {peak / GIB:.2f} GiB ({', '.join(parts)}; the rest are libraries, packed weights and passes)"
