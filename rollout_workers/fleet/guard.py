"""Ends what is left of a local Ray when its driver has gone: also after SIGKILL, when the driver can do nothing.

The kernel ends Ray's own servers with the driver; their agents would stay for up to a minute, and socket files for
ever. A small process waits for the driver to go, and cleans up."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Collection
from pathlib import Path

from ouro_rl.core.own_names import ROOT
from ouro_rl.core.process_id import ProcessId, own_process

LOOK_S = 0.5
GRACE_S = 2.0
"""Seconds in which Ray's processes may end by themselves when the driver has gone."""
CLOSE_S = 15.0
_BOOT = "import sys; sys.path.insert(0, sys.argv[1]); from rollout_workers.fleet.guard import main; main(*sys.argv[2:])"


class Guard:
    """The guard of this process's Ray, whose session has the folder `session`."""

    def __init__(self, session: str):
        own = own_process()
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-c", _BOOT, ROOT, session, str(own.pid), own.started, own.place],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            start_new_session=True,  # Ctrl-C and a hang-up are for the driver
        )

    def close(self) -> None:
        """After Ray was shut down: clean up at once."""
        assert self._process.stdout is not None
        self._process.stdout.read(1)  # before that, a signal would only end it
        self._process.terminate()
        self._process.wait(CLOSE_S)
        self._process.stdout.close()


def main(session: str, pid: str, started: str, place: str) -> None:
    """Wait for the driver to go, or for SIGTERM; then end the session's processes and remove its sockets."""
    asked: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _frame: asked.append(number))
    os.write(1, b"+")
    driver = ProcessId(pid=int(pid), started=started, place=place)
    while driver.is_alive and not asked:
        time.sleep(LOOK_S)  # a signal interrupts it
    # Asked for: Ray was shut down, and only its agents are left, which would go on for the whole time.
    clean_up(session, spared={os.getpid(), driver.pid}, grace_s=0 if asked else GRACE_S)


def clean_up(session: str, spared: Collection[int], grace_s: float) -> None:
    """End the processes of a session but those with the ids `spared`, and remove its sockets."""
    end = time.monotonic() + grace_s
    while (left := processes_of(session) - set(spared)) and time.monotonic() < end:
        time.sleep(0.1)
    for pid in left:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, signal.SIGKILL)
    shutil.rmtree(Path(session) / "sockets", ignore_errors=True)


def processes_of(session: str) -> set[int]:
    """The processes that write logs of a session: Ray's own, its workers, and what those have started. (Ray's processes
    change their names, so that their command lines do not tell.)"""
    logs = os.path.join(os.path.realpath(session), "logs")
    return {int(entry.name) for entry in Path("/proc").glob("[0-9]*") if _writes_below(entry, logs)}


def _writes_below(process: Path, folder: str) -> bool:
    try:
        return any(
            os.readlink(file).startswith(f"{folder}/") and _is_writable(process / "fdinfo" / file.name)
            for file in (process / "fd").iterdir()
        )
    except OSError:  # gone, or another user's
        return False


def _is_writable(info: Path) -> bool:
    flags = next(line.split()[1] for line in info.read_text().splitlines() if line.startswith("flags:"))
    return int(flags, 8) & os.O_ACCMODE != os.O_RDONLY
