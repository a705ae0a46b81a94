"""Naming a process so that another one can tell whether it still runs: process ids are used again, and machines and
containers each have their own."""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass
from pathlib import Path

_BOOT = Path("/proc/sys/kernel/random/boot_id")
_NAMESPACE = Path("/proc/self/ns/pid")


@dataclass(frozen=True, kw_only=True)
class ProcessId:
    """A process of some machine."""

    pid: int
    started: str
    """When it started, in ticks since boot; empty where there is no `/proc`."""
    place: str
    """The machine (and container) whose process ids these are."""

    @property
    def is_here(self) -> bool:
        """Whether it is a process of this machine and container."""
        return self.place == _place()

    @property
    def is_alive(self) -> bool:
        """Whether a process that `is_here` runs (or is stopped): neither gone nor dead and waiting for its parent."""
        if not _BOOT.exists():
            return _answers(self.pid)
        state = _state(self.pid)
        return state is not None and state[0] not in "ZX" and state[1] == self.started


def own_process() -> ProcessId:
    state = _state(os.getpid())
    return ProcessId(pid=os.getpid(), started=state[1] if state else "", place=_place())


def _place() -> str:
    if not _BOOT.exists():
        return socket.gethostname()
    return f"{_BOOT.read_text().strip()} {_NAMESPACE.stat().st_ino}"


def _state(pid: int) -> tuple[str, str] | None:
    """(state, start time) of a process; None if there is none."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
    except OSError:
        return None
    return fields[0], fields[19]


def _answers(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
