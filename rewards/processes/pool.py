"""Killable worker processes: one deadline and one memory limit an item; a worker that hangs or dies costs its item only.

Workers are fresh interpreters, not forks: the parent may hold CUDA, Ray or threads, none of which survives a fork."""

from __future__ import annotations

import contextlib
import json
import os
import pickle
import queue
import secrets
import select
import signal
import subprocess
import sys
import time
import weakref
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self

from ouro_rl.core.errors import RunError, UserError
from rewards.processes.worker import HEADER, NONCE_BYTES

_MAX_ANSWER = 1 << 28
"""Bytes. A child that announces more than this is not to be believed."""
_LONGEST_S = 7 * 24 * 3600.0 + 1
_BOOT = "import sys; sys.path.insert(0, sys.argv[1]); from rewards.processes.worker import main; main(*map(int, sys.argv[2:]))"
_BARE = ("PATH", "HOME", "TMPDIR", "LANG", "LC_ALL", "LD_LIBRARY_PATH", "PYTHONHOME", "OMP_NUM_THREADS", "VIRTUAL_ENV")
"""All that a child of a built-in reward sees of the environment: nothing in it is a secret."""
_ROOT = str(Path(__file__).resolve().parents[2])


@dataclass(frozen=True, kw_only=True)
class Reply:
    """What became of one item."""

    status: Literal["ok", "timeout", "crash"]
    value: Any = None
    """The handler's answer as plain JSON data, when the status is `ok`."""
    detail: str = ""
    ms: float = 0.0
    """Wall time in the worker in milliseconds, without waiting for one."""


class WorkerDied(Exception):
    """A child ended, or said what no child of ours says."""


class _Worker:
    """One child and its two pipes. Used by one thread at a time."""

    def __init__(self, bare_environment: bool = False) -> None:
        child_read, self._write_fd = os.pipe()
        self._read_fd, child_write = os.pipe()
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-c", _BOOT, _ROOT, str(child_read), str(child_write), str(os.getpid())],
                env={name: os.environ[name] for name in _BARE if name in os.environ} if bare_environment else None,
                stdin=subprocess.DEVNULL,
                stdout=2,  # what a reward prints joins our stderr: stdout may be somebody's data
                pass_fds=(child_read, child_write),
                start_new_session=True,  # a kill takes a reward's own children along, and Ctrl-C reaches us alone
            )
        finally:
            os.close(child_read)
            os.close(child_write)
        os.set_blocking(self._write_fd, False)
        os.set_blocking(self._read_fd, False)

    def exchange(self, request: bytes, timeout_s: float) -> dict[str, Any]:
        """Send one pickled request and wait for its answer. Raises TimeoutError or WorkerDied."""
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
            raise WorkerDied("the worker's answer is garbled") from None
        if not isinstance(answer, dict) or answer.pop("nonce", None) != nonce.hex():
            raise WorkerDied("the worker's answer is garbled, or to no question: does the reward fork?")
        return answer

    def alive(self) -> bool:
        return self._process.poll() is None

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
        """How the child ended. Leaves it unreaped, so that its process group can still be killed by number."""
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
        """Kill the child with everything it started; its pipes then end."""
        if self._process.returncode is None:  # not reaped, so the number is still ours
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)

    def discard(self) -> None:
        """Kill the child, wait until it is gone, and close the pipes."""
        self.signal_kill()
        self._process.wait()
        os.close(self._write_fd)
        os.close(self._read_fd)


def _wait(fd: int, event: int, deadline: float) -> None:
    poll = select.poll()
    poll.register(fd, event)
    if not poll.poll(max(0.0, 1000 * (deadline - time.monotonic()))):
        raise TimeoutError


def _discard_all(workers: set[_Worker], owner: int) -> None:
    if os.getpid() == owner:  # a fork's copy must not kill its parent's workers
        while workers:
            workers.pop().discard()


class ProcessPool:
    """`workers` children that each build `handler(**arguments)` (named `module:function`) and call it once an item.

    Children start when first needed, and end with the pool or with this process. Every method may be called from any
    thread; from asyncio, await `asyncio.wrap_future(pool.submit(item))`. A fork's copy starts children of its own."""

    def __init__(
        self,
        handler: str,
        arguments: dict[str, Any],
        *,
        workers: int,
        timeout_s: float,
        memory_mb: int | None = None,
        start_timeout_s: float = 120.0,
        bare_environment: bool = False,
        subject: str = "rewards",
    ) -> None:
        """timeout_s: seconds an item may take, from when a worker has it; start_timeout_s: for its imports.
        memory_mb: address space of one child in MiB, None = unlimited.
        bare_environment: children inherit no environment but search paths and the like. subject: what errors are about.
        Raises UserError for numbers that
        make no sense."""
        if workers < 1 or not 0 < timeout_s < _LONGEST_S:
            raise UserError(
                f"rewards: workers must be >= 1 and timeout_s > 0, at most a week (got {workers} and {timeout_s:g})"
            )
        self._start_request = {"handler": handler, "arguments": arguments, "memory_mb": memory_mb}
        self._workers, self._timeout_s, self._start_timeout_s = workers, timeout_s, start_timeout_s
        self._bare_environment, self._subject = bare_environment, subject
        self._closed = False
        self._open()

    def _open(self) -> None:
        self._owner = os.getpid()
        self._ever_started = False
        self._all: set[_Worker] = set()
        self._places: queue.LifoQueue[_Worker | None] = queue.LifoQueue()
        for _ in range(self._workers):
            self._places.put(None)  # a place whose child is not started yet
        self._threads = ThreadPoolExecutor(self._workers, thread_name_prefix="rewards")
        self._release = weakref.finalize(self, _discard_all, self._all, self._owner)  # also runs at exit

    def submit(self, item: Any) -> Future[Reply]:
        """Hand one item (anything picklable) to the next free worker. A hang or a death is a Reply; the future raises
        UserError when no worker could ever be started."""
        if self._closed:
            raise RunError("rewards: the process pool is closed")
        if os.getpid() != self._owner:
            self._open()
        return self._threads.submit(self._serve, item)

    def run(self, items: Sequence[Any]) -> list[Reply]:
        """One reply an item, in order. Raises as `submit`."""
        futures = [self.submit(item) for item in items]
        try:
            return [future.result() for future in futures]
        finally:
            for future in futures:  # when one raised: do not work through the rest
                future.cancel()

    def close(self) -> None:
        """Kill every worker. Items under way come back as `crash`; those that wait are cancelled."""
        self._closed = True
        if os.getpid() == self._owner:
            self._threads.shutdown(wait=False, cancel_futures=True)
            for worker in list(self._all):
                worker.signal_kill()
            self._threads.shutdown(wait=True)
            self._release()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _serve(self, item: Any) -> Reply:
        try:
            request = pickle.dumps({"payload": item, "timeout_s": self._timeout_s})
        except Exception as error:  # noqa: BLE001 - pickle raises what the object's own methods raise
            return Reply(status="crash", detail=f"the item cannot be sent to a worker: {error}")
        worker = self._places.get()
        keep = None
        started = time.perf_counter()
        try:
            if worker is None or not worker.alive():
                self._discard(worker)
                worker = None
                worker = self._start_worker()
                started = time.perf_counter()
            answer = worker.exchange(request, self._timeout_s)
            if not answer.get("stop"):
                keep = worker
        except TimeoutError:
            detail = f"killed at its deadline of {self._timeout_s:g} s"
            return Reply(status="timeout", detail=detail, ms=_ms_since(started))
        except WorkerDied as error:
            return Reply(status="crash", detail=str(error), ms=_ms_since(started))
        finally:
            if keep is None:
                self._discard(worker)
            self._places.put(keep)
        if "ok" in answer:
            return Reply(status="ok", value=answer["ok"], ms=_ms_since(started))
        return Reply(status="crash", detail=str(answer.get("error")), ms=_ms_since(started))

    def _start_worker(self) -> _Worker:
        """A child that has built its handler. The first that cannot is the user's affair (UserError); once one could,
        a failure is only this item's (WorkerDied)."""
        if self._closed:
            raise WorkerDied("the process pool is closed")
        worker = _Worker(self._bare_environment)
        self._all.add(worker)
        path = [entry or os.getcwd() for entry in sys.path]
        try:
            answer = worker.exchange(pickle.dumps({**self._start_request, "path": path}), self._start_timeout_s)
            problem = answer.get("error")
        except TimeoutError:
            problem = f"the reward's worker was not ready after {self._start_timeout_s:g} s"
        except WorkerDied as error:
            problem = f"{error} while it loaded the reward"
        if problem is None:
            self._ever_started = True
            return worker
        self._discard(worker)
        if self._subject not in problem:
            problem = f"{self._subject}: {problem}."
        raise WorkerDied(problem) if self._ever_started or self._closed else UserError(problem)

    def _discard(self, worker: _Worker | None) -> None:
        if worker is not None and worker in self._all:
            self._all.discard(worker)
            worker.discard()


def _ms_since(started: float) -> float:
    return 1000 * (time.perf_counter() - started)
