"""Settings of rollout workers in processes of their own."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, kw_only=True)
class FleetSettings:
    """What each worker reserves, where they run, and how long a failing one is waited for."""

    cpus: float = 1
    """CPUs of each worker."""
    gpus: float = 0
    """GPUs of each worker; a fraction shares one."""
    threads: int | None = None
    """Torch threads of each worker. None: one per CPU."""
    address: str | None = None
    """A Ray cluster: `host:port` or `auto`. None: that of `RAY_ADDRESS`, or a local one that ends with the run."""
    placement: Literal["pack", "spread"] = "pack"
    """Workers on as few nodes as possible, or evenly on all."""
    heartbeat_s: float = 10
    """A worker that does not answer for so many seconds is killed and replaced."""
    stall_s: float = 600
    """A worker that has samples and runs no pass for so many seconds is killed and replaced."""
    tries: int = 3
    """A prompt is set aside when its worker has died so many times while it ran alone."""

    @property
    def torch_threads(self) -> int:
        return self.threads or max(1, math.ceil(self.cpus))

    def describe(self, workers: int) -> str:
        return f"{workers} rollout workers with {self.cpus:g} CPUs and {self.gpus:g} GPUs each"
