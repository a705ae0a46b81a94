"""The parent of a reward's process: passes its output on up to a limit, and ends with it whatever it has started.

A reward may start processes that leave its group, as daemons do. On Linux the keeper is the one to which such processes
fall when their parent ends, so it finds all of them; it outlives the reward, and ends with the driver."""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import select
import signal
import sys
import time
from pathlib import Path

LOOK_MS = 1000
"""Time between two looks at whether the driver is still there."""
END_S = 5.0
"""Time in which everything is to be ended: what cannot be killed is left."""
PIECE = 1 << 16
_SUBREAPER = 36
"""PR_SET_CHILD_SUBREAPER."""
_STDOUT, _STDERR = 1, 2


def stay_as_keeper(request_fd: int, answer_fd: int, parent: int, log_limit: int) -> None:
    """Fork. Returns in the child, which is to run the reward; this process stays as its keeper, and ends as the child
    does. `parent`: the driver. `log_limit`: bytes of output that are passed on."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_SUBREAPER, 1, 0, 0, 0)
    output_fd, child_output = os.pipe()
    wake_fd, wake_write = os.pipe()
    for fd in (wake_fd, wake_write):
        os.set_blocking(fd, False)
    signal.set_wakeup_fd(wake_write, warn_on_full_buffer=False)
    for number in (signal.SIGCHLD, signal.SIGTERM):
        signal.signal(number, _note)
    child = os.fork()
    if child:
        os.close(child_output)
        os.close(answer_fd)
        _Keeper(child, parent, request_fd, output_fd, wake_fd, log_limit).run()
    signal.set_wakeup_fd(-1)
    for number in (signal.SIGCHLD, signal.SIGTERM):
        signal.signal(number, signal.SIG_DFL)
    for fd in (output_fd, wake_fd, wake_write):
        os.close(fd)
    os.dup2(child_output, _STDOUT)
    os.dup2(child_output, _STDERR)
    os.close(child_output)
    os.setsid()


_asked: list[int] = []


def _note(number: int, _frame: object) -> None:
    if number == signal.SIGTERM:
        _asked.append(number)


class _Keeper:
    def __init__(self, child: int, parent: int, request_fd: int, output_fd: int, wake_fd: int, log_limit: int):
        self.child, self.parent, self.left = child, parent, log_limit
        self.request_fd, self.output_fd, self.wake_fd = request_fd, output_fd, wake_fd
        self.limit = log_limit
        self.status: int | None = None
        """The child's, once it has ended."""
        self.poll = select.poll()
        self.poll.register(request_fd, 0)  # reports only a hang-up
        self.poll.register(output_fd, select.POLLIN)
        self.poll.register(wake_fd, select.POLLIN)

    def run(self) -> None:
        """Never returns."""
        while self.status is None and not _asked and os.getppid() == self.parent:
            events = dict(self.poll.poll(LOOK_MS))
            if self.wake_fd in events:
                with contextlib.suppress(BlockingIOError):
                    os.read(self.wake_fd, PIECE)
            if self.output_fd in events:
                self._pass_on()
            if self.request_fd in events:
                break
            self._reap()
        self._end_all()
        self._drain()
        _end_like(self.status)

    def _pass_on(self) -> bool:
        """Pass a piece of output on; false at its end."""
        data = os.read(self.output_fd, PIECE)
        if not data:
            self.poll.unregister(self.output_fd)
            return False
        note = f"\n(a reward printed more than {self.limit:,} bytes: the rest is left out)\n".encode()
        with contextlib.suppress(OSError):  # whoever read it has gone
            os.write(_STDERR, data[: max(0, self.left)] + (note if 0 <= self.left < len(data) else b""))
        self.left = self.left - len(data) if len(data) <= self.left else -1
        return True

    def _drain(self) -> None:
        """What the reward printed last."""
        os.set_blocking(self.output_fd, False)
        with contextlib.suppress(OSError, KeyError):
            while self._pass_on():
                pass

    def _reap(self) -> None:
        """Wait for children that have ended, the reward and orphans of its own."""
        with contextlib.suppress(ChildProcessError):
            while (found := os.waitpid(-1, os.WNOHANG))[0]:
                if found[0] == self.child:
                    self.status = found[1]

    def _end_all(self) -> None:
        """Kill the reward and all that it has started, also what they start meanwhile."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.child, signal.SIGKILL)
        end = time.monotonic() + END_S
        while (left := descendants()) and time.monotonic() < end:
            for pid in left:
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.kill(pid, signal.SIGKILL)
            self._reap()
            select.select([], [], [], 0.005)
        self._reap()


def descendants() -> set[int]:
    """All processes below this one that are not dead (Linux)."""
    parents: dict[int, int] = {}
    for entry in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            state, parent = entry.read_text().rpartition(") ")[2].split()[:2]
            if state not in "ZX":
                parents[int(entry.parent.name)] = int(parent)
    found, size = {os.getpid()}, 0
    while size != len(found):
        size = len(found)
        found |= {pid for pid, parent in parents.items() if parent in found}
    return found - {os.getpid()}


def _end_like(status: int | None) -> None:
    """End as the child has; by SIGKILL if it was killed here."""
    number = signal.SIGKILL if status is None else os.WTERMSIG(status) if os.WIFSIGNALED(status) else None
    if number is None:
        assert status is not None
        os._exit(os.waitstatus_to_exitcode(status))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if number not in (signal.SIGKILL, signal.SIGSTOP):
        signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)
    os._exit(128 + number)
