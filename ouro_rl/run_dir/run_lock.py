"""The lock of a run folder: one process at a time writes there."""

from __future__ import annotations

import errno
import fcntl
import json
import logging
import os
import socket
import struct
import sys
from pathlib import Path
from typing import IO, Any, Literal

from ouro_rl.core.errors import UserError

logger = logging.getLogger(__name__)

LOCK_FILE = "run.lock"
Owner = Literal["running", "killed", "none", "unknown"]
"""Whether a process holds the lock; `killed`: it ended without a release; `unknown`: this file system does not say."""
_FLOCK = (3, "qqihh") if sys.platform == "darwin" else (0, "hhqqi0q")
"""The operating system's `struct flock`: the place of its `l_type`, which `l_whence` follows, and its layout."""
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
            raise UserError(_refusal(self.folder, _owner_here()))
        file = self.path.open("a+", encoding="utf-8")
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.fstat(file.fileno()).st_nlink == 0:  # released between the two lines above, by an owner that ended
                file.close()
                return self.acquire()
        except OSError as error:
            file.seek(0)
            owner = _owner_in(file.read())
            file.close()
            if error.errno in (errno.EACCES, errno.EAGAIN):
                raise UserError(_refusal(self.folder, owner)) from None
            logger.warning("%s: this file system has no locks (%s); start no second run there", self.folder, error)
            return
        file.truncate(0)
        file.write(json.dumps(_owner_here()) + "\n")
        file.flush()
        _HELD[self.path], self._is_mine = file, True

    def release(self) -> None:
        if self._is_mine:
            self.path.unlink(missing_ok=True)
            _HELD.pop(self.path).close()
            self._is_mine = False


def _owner_here() -> dict[str, Any]:
    return {"pid": os.getpid(), "host": socket.gethostname()}


def _owner_in(text: str) -> dict[str, Any]:
    """What a lock file says; empty if its owner is about to write it."""
    try:
        owner = json.loads(text)
    except ValueError:
        return {}
    return owner if isinstance(owner, dict) else {}


def _refusal(folder: Path, owner: dict[str, Any]) -> str:
    return (
        f"{folder}: process {owner.get('pid', '?')} on {owner.get('host', '?')} is running there;\n"
        "  wait for it or stop it, or give another run.dir"
    )


def owner_of(folder: Path) -> Owner:
    """Whether a process is at work in `folder`. Leaves the folder as it is."""
    return _look(folder)[0]


def _look(folder: Path) -> tuple[Owner, dict[str, Any]]:
    """The same, and what is known of the process."""
    path = folder / LOCK_FILE
    try:
        here = path.stat()
        if any(os.path.samestat(here, os.fstat(file.fileno())) for file in _HELD.values()):
            return "running", _owner_here()  # by this process, whose lock would end if the file were opened and closed
        file = path.open(encoding="utf-8")
    except FileNotFoundError:
        return "none", {}
    except OSError:
        return "unknown", {}
    with file:
        try:
            return ("running" if _is_locked(file) else "killed"), _owner_in(file.read())
        except OSError:
            return "unknown", {}


def _is_locked(file: IO[str]) -> bool:
    """Whether another process has locked the file. The operating system is asked (F_GETLK): to try a lock would be to
    hold it for a moment, in which a run that begins would give up. Raises OSError where there are no locks."""
    place, layout = _FLOCK
    fields = [0] * 5
    fields[place], fields[place + 1] = fcntl.F_RDLCK, os.SEEK_SET
    answer = fcntl.fcntl(file, fcntl.F_GETLK, struct.pack(layout, *fields))
    return struct.unpack(layout, answer)[place] != fcntl.F_UNLCK


def refuse_live_run(folder: Path) -> None:
    """Raise UserError if a process is running in `folder`; leaves the folder as it is.

    Only rank 0 of several training processes asks, since it is the one that will hold the lock."""
    state, owner = _look(folder)
    if state == "running" and os.environ.get("RANK", "0") == "0":
        raise UserError(_refusal(folder, owner))
