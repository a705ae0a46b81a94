"""The lock of a run folder: one process at a time writes there."""

from __future__ import annotations

import errno
import fcntl
import json
import logging
import os
import socket
from pathlib import Path
from typing import IO, Any, Literal

from ouro_rl.core.errors import UserError

logger = logging.getLogger(__name__)

LOCK_FILE = "run.lock"
Owner = Literal["running", "killed", "none", "unknown"]
"""Whether a process holds the lock; `killed`: it ended without a release; `unknown`: this file system does not say."""
_HELD: dict[Path, IO[str]] = {}
"""Locks of this process, which the operating system would grant to it again, and which end when the file is closed."""


class RunLock:
    """Held from `acquire` to `release`, or to the end of the process, however that ends.

    A record lock of the operating system, which child processes do not inherit: a run whose main process was killed can
    be resumed although a child of it may still be there. The file says who holds it."""

    def __init__(self, folder: Path):
        self.folder, self.path = folder, folder.absolute() / LOCK_FILE
        self._is_mine = False

    def acquire(self) -> None:
        """Raises UserError, naming the owner, if another process holds the lock. The folder must exist."""
        if self.path in _HELD:
            raise UserError(self._refusal({"pid": os.getpid(), "host": socket.gethostname()}))
        file = self.path.open("a+", encoding="utf-8")
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.fstat(file.fileno()).st_nlink == 0:  # released between the two lines above, by an owner that ended
                file.close()
                return self.acquire()
        except OSError as error:
            owner = self._owner(file)
            file.close()
            if error.errno in (errno.EACCES, errno.EAGAIN):
                raise UserError(self._refusal(owner)) from None
            logger.warning("%s: this file system has no locks (%s); start no second run there", self.folder, error)
            return
        file.truncate(0)
        file.write(json.dumps({"pid": os.getpid(), "host": socket.gethostname()}) + "\n")
        file.flush()
        _HELD[self.path], self._is_mine = file, True

    def release(self) -> None:
        if self._is_mine:
            self.path.unlink(missing_ok=True)
            _HELD.pop(self.path).close()
            self._is_mine = False

    def _refusal(self, owner: dict[str, Any]) -> str:
        return (
            f"{self.folder}: process {owner.get('pid', '?')} on {owner.get('host', '?')} is running there;\n"
            "  wait for it or stop it, or give another run.dir"
        )

    @staticmethod
    def _owner(file: IO[str]) -> dict[str, Any]:
        file.seek(0)
        try:
            owner = json.loads(file.read())
        except ValueError:  # the owner is about to write it
            return {}
        return owner if isinstance(owner, dict) else {}


def owner_of(folder: Path) -> Owner:
    """Whether a process is at work in `folder`. Leaves the folder as it is."""
    path = folder / LOCK_FILE
    try:
        here = path.stat()
        if any(os.path.samestat(here, os.fstat(file.fileno())) for file in _HELD.values()):
            return "running"  # by this process, whose lock would end if the file were opened and closed
        file = path.open(encoding="utf-8")
    except FileNotFoundError:
        return "none"
    except OSError:
        return "unknown"
    with file:
        try:
            fcntl.lockf(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError as error:
            return "running" if error.errno in (errno.EACCES, errno.EAGAIN) else "unknown"
    return "killed"


def refuse_live_run(folder: Path) -> None:
    """Raise UserError if a process is running in `folder`; leaves the folder as it is.

    Only rank 0 of several training processes asks, since it is the one that will hold the lock."""
    lock = RunLock(folder)
    if lock.path.exists() and os.environ.get("RANK", "0") == "0":
        lock.acquire()
        lock.release()
