"""The fork server inside a sandbox. It runs no untrusted code and holds no secrets: it only starts and ends children.

Every program gets a child process of its own, which drops all privileges before it receives anything. With
`bubblewrap`, each child is also process 1 of its own PID namespace: it can neither see nor reach other processes, and
everything it started ends with it."""

from __future__ import annotations

import contextlib
import gc
import importlib
import json
import os
import random
import signal
import socket
import sys
import time
from typing import Any

from . import candidate, confine, judge, wire

ROLES = {"candidate": candidate.main, "judge": judge.main}
_PRELOADED = """abc array base64 bisect collections.abc contextlib copy cmath dataclasses datetime decimal enum
    fractions functools hashlib heapq inspect io itertools json keyword locale math numbers operator pprint queue random
    re statistics string struct sys textwrap threading time types typing unicodedata zlib"""
"""Modules imported once here, so that children need not import them again."""
_ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
_GONE_S = 0.5
"""Seconds for a child to end once its channel is closed: more than it waits for a processor of a busy machine."""
_CPU_SLACK_S = 0.5
"""Seconds of CPU time before its limit at which a killed child counts as killed for it."""
_RULES = 220
"""File descriptor of the Landlock ruleset; above those that `_place_descriptors` uses."""


def main(control_fd: int, rung: str, packages: list[str], folders: list[str], paths: list[str]) -> None:
    """Serve on the control socket until the host closes it. rung: `bubblewrap`, `landlock` or `none`. packages:
    installed packages that programs may import, found in these folders. paths (for `landlock`): paths that children may
    read, then `--`, then folders that they may only list."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the host handles Ctrl-C
    for name in _PRELOADED.split():
        with contextlib.suppress(ImportError):  # some Python builds lack modules such as zlib
            importlib.import_module(name)
    _import_packages(packages, folders)
    if rung == "bubblewrap":
        _own_pid_namespace()
    else:
        confine.die_with_parent()
    if rung == "landlock":  # the ruleset is shared by all children
        split = paths.index("--")
        rules = confine.landlock_rules(paths[:split], paths[split + 1 :])
        control_fd = os.dup(control_fd)  # the host chose its number, which may equal _RULES
        os.dup2(rules, _RULES, inheritable=False)
        os.close(rules)
    server = _Server(control_fd, rung)
    confine.warm_up()
    gc.collect()
    gc.freeze()
    server.serve()


def _import_packages(packages: list[str], folders: list[str]) -> None:
    """Import packages once for all children, without threads of their own, which would not survive a fork."""
    os.environ.update(_ONE_THREAD)
    sys.path += folders
    for name in packages:
        importlib.import_module(name)
    for name in _ONE_THREAD:
        del os.environ[name]


def _own_pid_namespace() -> None:
    """Continue as process 1 of a PID namespace owned by our own user namespace, since only such a namespace can be
    rejoined."""
    confine.unshare(confine.CLONE_NEWPID)
    if child := os.fork():
        os.waitpid(child, 0)
        os._exit(0)
    confine.die_with_parent()


class _Server:
    def __init__(self, control_fd: int, rung: str) -> None:
        self._control = socket.socket(fileno=control_fd)
        self._rung = rung
        self._pidfd = os.pidfd_open(os.getpid()) if rung == "bubblewrap" else -1
        self._children: dict[int, tuple[int, float]] = {}
        """Number -> process id, and its limit of CPU time in seconds."""

    def serve(self) -> None:
        self._reply({"ready": True})
        while True:
            data, fds, _, _ = socket.recv_fds(self._control, 1 << 16, 4)
            if not data:  # the host has closed the socket
                for number in list(self._children):
                    self._end(number, gone=False)
                os._exit(0)
            request = json.loads(data)
            if "start" in request:
                self._start(request, fds)
            elif "cpu" in request:
                self._reply({"cpu": self._processor_time(request["cpu"])})
            else:
                self._reply(self._end(request["end"], gone=request["gone"]))

    def _reply(self, answer: dict[str, object]) -> None:
        self._control.send(json.dumps(answer).encode())

    def _start(self, request: dict[str, object], fds: list[int]) -> None:
        if self._rung == "bubblewrap":
            confine.unshare(confine.CLONE_NEWPID)
        pid = os.fork()
        if pid == 0:
            _child(self._rung, request, fds)
        if self._rung == "bubblewrap":
            confine.rejoin_own_pid_namespace(self._pidfd)
        for fd in fds:
            os.close(fd)
        limits: Any = request["limits"]
        self._children[request["start"]] = pid, limits["seconds"]  # type: ignore[index]

    def _processor_time(self, number: int) -> float:
        """CPU time of a child and all its threads in seconds. Computes the clock id as clock_getcpuclockid(3) does."""
        try:
            return time.clock_gettime((~self._children[number][0] << 3) | 2)
        except OSError:  # it has ended
            return 0.0

    def _end(self, number: int, *, gone: bool) -> dict[str, object]:
        """Kill a child and everything it started. gone: its channel is closed, so it is about to end by itself. Returns
        its exit status as `os.waitpid` does, and whether it had been killed before, other than for its CPU time."""
        pid, seconds = self._children.pop(number)  # not reaped yet, so the id has not been reused
        ended = _has_ended(pid, _GONE_S if gone else 0.0)
        if self._rung == "none":
            with contextlib.suppress(ProcessLookupError):
                os.killpg(pid, signal.SIGKILL)
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        _, status, usage = os.wait4(pid, 0)
        spent = usage.ru_utime + usage.ru_stime >= seconds - _CPU_SLACK_S
        killed = ended and os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL and not spent
        return {"status": status, "killed": killed}


def _has_ended(pid: int, patience_s: float) -> bool:
    """Whether a child has ended, perhaps within a short time. Does not reap it."""
    deadline = time.monotonic() + patience_s
    while os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
        if time.monotonic() >= deadline:
            return False
        time.sleep(0.001)
    return True


def _child(rung: str, request: dict[str, object], fds: list[int]) -> None:
    """Run a child: confine it, then play its role. Its channel is the first descriptor, always number 3 in the
    child."""
    try:
        channel = _place_descriptors(rung, fds)
        try:
            _confine(rung, confine.Limits(**request["limits"]))  # type: ignore[arg-type]
        except Exception as error:  # noqa: BLE001 - reported to the host, which then starts no program
            wire.send(channel, {"failed": f"{type(error).__name__}: {error}"})
            os._exit(1)
        wire.send(channel, {"ready": True})
        ROLES[request["role"]](channel)  # type: ignore[index]
    finally:
        os._exit(1)


def _place_descriptors(rung: str, fds: list[int]) -> int:
    high = [os.dup2(fd, 200 + index) for index, fd in enumerate(fds)]
    null = os.open("/dev/null", os.O_RDWR)
    for target in (0, 1, 2):
        os.dup2(null, target)
    for target, fd in zip((3, 0, 1), high, strict=False):
        os.dup2(fd, target)
    if rung == "landlock":  # keep the ruleset, which is closed once it is enforced
        os.closerange(4, _RULES)
        os.closerange(_RULES + 1, 1 << 16)
    else:
        os.closerange(4, 1 << 16)
    return 3


def _confine(rung: str, limits: confine.Limits) -> None:
    os.setsid()
    signal.signal(signal.SIGINT, signal.default_int_handler)
    random.seed()
    sys.path[:] = [entry for entry in sys.path if not entry.startswith("/opt/ouro")]
    if rung == "bubblewrap":
        confine.private_tmp(limits.tmp_mb)
        confine.drop_privileges()
    elif rung == "landlock":
        library = os.path.dirname(os.__file__)
        held = os.open(library, os.O_PATH)
        confine.drop_privileges()
        confine.die_with_parent()
        confine.landlock(_RULES)
        if os.access(library, os.R_OK):
            os.close(held)
        else:  # it is below a folder that only root may enter: reach it through the open descriptor instead
            _move_library(library, f"/proc/self/fd/{held}")
    confine.set_limits(limits)
    if rung != "none":
        confine.filter_system_calls(writable=rung == "bubblewrap")


def _move_library(old: str, new: str) -> None:
    """Make imports look in `new` for the modules they looked for in `old`."""
    for paths in [sys.path, *(vars(module).get("__path__") for module in list(sys.modules.values()))]:
        if isinstance(paths, list):
            paths[:] = [new + path.removeprefix(old) if path.startswith(old) else path for path in paths]
    sys.path_importer_cache.clear()
