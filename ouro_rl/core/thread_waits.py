"""How OpenMP threads wait for each other: they spin briefly, then sleep.

OpenMP spins for milliseconds by default. On a busy machine the thread the others wait for may not be running, and the
spinning threads occupy its CPU: training was 3 to 9 times slower, sampling up to 30 times (docs/engine.md, "How threads
wait").
"""

from __future__ import annotations

import os
from collections.abc import MutableMapping

WAITS = {
    "OMP_WAIT_POLICY": "passive",  # every runtime: GNU's, LLVM's, Intel's
    # GNU's, which torch ships on Linux: about 50 microseconds of spinning, so that an idle machine loses nothing
    "GOMP_SPINCOUNT": "3000",
}
SETTINGS = (*WAITS, "KMP_BLOCKTIME")


def wait_passively(environment: MutableMapping[str, str] = os.environ) -> None:
    """Set how threads wait, unless the user has. Takes effect when a process loads torch; child processes inherit
    it."""
    if not any(name in environment for name in SETTINGS):
        environment.update(WAITS)
