"""One child process of a pool, as its parent sees it: started, asked within a deadline, ended."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import select
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from rewards.processes.worker import HEADER, NONCE_BYTES

_MAX_ANSWER = 1 << 28
"""Largest answer in bytes. A child that announces more is treated as broken."""
_KEEPER_S = 10.0
"""Seconds in which a keeper ends what its reward started."""
_BOOT = (
    "import sys; sys.path.insert(0, sys.argv[1]); from rewards.processes.worker import main; "
    "main(*map(int, sys.argv[2:]))"
)
_BARE = ("PATH", "HOME", "TMPDIR", "LANG", "LC_ALL", "LD_LIBRARY_PATH", "PYTHONHOME", "OMP_NUM_THREADS", "VIRTUAL_ENV")
"""The only environment variables passed to workers of built-in rewards: none of them holds a secret."""
_ROOT = str(Path(__file__).resolve().parents[2])


class WorkerDied(Exception):
    """A worker ended or sent an invalid answer."""


class Child:
    """One child process and its two pipes. Used by one thread at a time."""

    def __init__(self, bare_environment: bool, log_limit: int) -> None:
        child_read, self._write_fd = os.pipe()
        self._read_fd, child_write = os.pipe()
        try:
            self._process = subprocess.Popen(
                [
                    sys.executable,
                    "-P",
                    "-c",
                    _BOOT,
                    _ROOT,
                    str(child_read),
                    str(child_write),
                    str(os.getpid()),
                    str(log_limit),
                ],
                env={name: os.environ[name] for name in _BARE if name in os.environ} if bare_environment else None,
                stdin=subprocess.DEVNULL,
                stdout=2,  # a reward's output goes to our stderr, since our stdout may carry data
                pass_fds=(child_read, child_write),
                start_new_session=True,  # Ctrl-C reaches only us
            )
        finally:
            os.close(child_read)
            os.close(child_write)
        os.set_blocking(self._write_fd, False)
        os.set_blocking(self._read_fd, False)

    def exchange(self, request: bytes, timeout_s: float) -> dict[str, Any]:
        """Send one pickled request and wait for its answer, within timeout_s seconds. Raises TimeoutError or
        WorkerDied."""
        nonce = secrets.token_bytes(NONCE_BYTES)
        request = nonce + request
        deadline = time.monotonic() + timeout_s
        self._write(HEADER.pack(len(request)) + request, deadline)
        size = HEADER.unpack(self._read(HEADER.size, deadline))[0]
        if size > _MAX_ANSWER:
            raise WorkerDied(f"the worker announced an answer of {size} bytes")
        try:
            answer = json.loads(self._read(size, deadline))
        except ValueError:
            raise WorkerDied("the worker's answer is not valid JSON") from None
        if not isinstance(answer, dict) or answer.pop("nonce", None) != nonce.hex():
            raise WorkerDied("the worker's answer does not match the request: a reward must not fork")
        return answer

    def alive(self) -> bool:
        """Whether it can answer: the process behind its keeper has its end of the pipe open."""
        poll = select.poll()
        poll.register(self._read_fd, 0)
        return self._process.poll() is None and not poll.poll(0)

    def _write(self, data: bytes, deadline: float) -> None:
        view = memoryview(data)
        while view:
            _wait(self._write_fd, select.POLLOUT, deadline)
            try:
                view = view[os.write(self._write_fd, view[: 1 << 16]) :]
            except BlockingIOError:
                continue
            except BrokenPipeError:
                raise WorkerDied(self._last_words()) from None

    def _read(self, size: int, deadline: float) -> bytes:
        parts = bytearray()
        while len(parts) < size:
            _wait(self._read_fd, select.POLLIN, deadline)
            part = os.read(self._read_fd, size - len(parts))
            if not part:
                raise WorkerDied(self._last_words())
            parts += part
        return bytes(parts)

    def _last_words(self) -> str:
        """How the child ended. Does not reap it, so that its process group can still be killed by id."""
        for _ in range(100):
            with contextlib.suppress(ChildProcessError):
                end = os.waitid(os.P_PID, self._process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
                if end is not None and end.si_code == os.CLD_EXITED:
                    return f"the worker exited with status {end.si_status}"
                if end is not None:
                    return f"the worker was killed by {signal.Signals(end.si_status).name}"
            time.sleep(0.01)
        return "the worker closed its pipe"

    def signal_kill(self) -> None:
        """Have the keeper kill the child and everything it started, which closes its pipes."""
        if self._process.returncode is None:  # not reaped, so the id has not been reused
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._process.pid, signal.SIGTERM)

    def discard(self) -> None:
        """Kill and reap the child, and close the pipes."""
        self.signal_kill()
        try:
            self._process.wait(_KEEPER_S)
        except subprocess.TimeoutExpired:  # somebody stopped the keeper
            self._process.kill()
            self._process.wait()
        os.close(self._write_fd)
        os.close(self._read_fd)


def _wait(fd: int, event: int, deadline: float) -> None:
    poll = select.poll()
    poll.register(fd, event)
    if not poll.poll(max(0.0, 1000 * (deadline - time.monotonic()))):
        raise TimeoutError
