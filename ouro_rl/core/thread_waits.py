"""How the threads of a parallel region wait for each other: briefly awake, then asleep.

OpenMP's default is to spin for milliseconds. On a machine that has other work, the thread that the others wait for is not running, and the
spinning ones take its processor: training was 3 to 9 times slower, sampling up to 30 times (docs/engine.md, "How threads wait").
"""

from __future__ import annotations

import os
from collections.abc import MutableMapping

WAITS = {
    "OMP_WAIT_POLICY": "passive",  # every runtime: GNU's, LLVM's, Intel's
    "GOMP_SPINCOUNT": "3000",  # GNU's, which torch brings on Linux: some 50 microseconds awake, so that a free machine loses nothing
}
SETTINGS = (*WAITS, "KMP_BLOCKTIME")


def wait_passively(environment: MutableMapping[str, str] = os.environ) -> None:
    """Choose how threads wait, unless the user has. Read when a process loads torch, and inherited by the processes that it starts."""
    if not any(name in environment for name in SETTINGS):
        environment.update(WAITS)
