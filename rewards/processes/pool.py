"""A pool of killable worker processes with a deadline and a memory limit per item. A worker that hangs or dies loses
only its current item.

Workers are fresh interpreters, not forks: the parent may use CUDA, Ray or threads, none of which survives a fork."""

from __future__ import annotations

import os
import pickle
import queue
import sys
import time
import weakref
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Literal, Self

from ouro_rl.core.errors import RunError, UserError
from rewards.processes.child import Child, WorkerDied

_LONGEST_S = 7 * 24 * 3600.0 + 1
LOG_LIMIT = 1 << 20
"""Bytes that one child may print."""


@dataclass(frozen=True, kw_only=True)
class Reply:
    """The result of one item."""

    status: Literal["ok", "timeout", "crash"]
    value: Any = None
    """The handler's answer as plain JSON data, if the status is `ok`."""
    detail: str = ""
    ms: float = 0.0
    """Wall time in the worker in milliseconds, excluding the wait for a free worker."""


def _discard_all(workers: set[Child], owner: int) -> None:
    if os.getpid() == owner:  # a forked copy must not kill its parent's workers
        while workers:
            workers.pop().discard()


class ProcessPool:
    """`workers` child processes, each of which builds `handler(**arguments)` (named `module:function`) and calls the
    result once per item.

    Children start on first use, and end with the pool or with this process. Thread-safe; from asyncio, await
    `asyncio.wrap_future(pool.submit(item))`. A forked copy of the pool starts children of its own."""

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
        own_memory: bool = False,
        subject: str = "rewards",
    ) -> None:
        """timeout_s: seconds per item, counted from when a worker receives it. start_timeout_s: seconds for a worker's
        imports. memory_mb: address space of one child in MiB, None = unlimited; with own_memory, what it has written
        or may write for itself alone, without the libraries that it maps. bare_environment: children inherit
        only the environment variables in `_BARE`. subject: what error messages are about.

        Raises UserError if workers or timeout_s is out of range."""
        if workers < 1 or not 0 < timeout_s < _LONGEST_S:
            raise UserError(
                "rewards: workers must be >= 1, and timeout_s > 0 and at most one week "
                f"(got {workers} and {timeout_s:g})"
            )
        self._start_request = {
            "handler": handler,
            "arguments": arguments,
            "memory_mb": memory_mb,
            "own_memory": own_memory,
        }
        self._workers, self._timeout_s, self._start_timeout_s = workers, timeout_s, start_timeout_s
        self._bare_environment, self._subject = bare_environment, subject
        self._closed = False
        self._open()

    def _open(self) -> None:
        self._owner = os.getpid()
        self._ever_started = False
        self._all: set[Child] = set()
        self._places: queue.LifoQueue[Child | None] = queue.LifoQueue()
        for _ in range(self._workers):
            self._places.put(None)  # a slot whose child has not been started
        self._threads = ThreadPoolExecutor(self._workers, thread_name_prefix="rewards")
        self._release = weakref.finalize(self, _discard_all, self._all, self._owner)  # also runs at exit

    def submit(self, item: Any) -> Future[Reply]:
        """Send one item (any picklable object) to the next free worker. A worker that hangs or dies gives a Reply. The
        future raises UserError if no worker could ever be started. Raises RunError if the pool is closed."""
        if self._closed:
            raise RunError("rewards: the process pool is closed")
        if os.getpid() != self._owner:
            self._open()
        return self._threads.submit(self._serve, item)

    def run(self, items: Sequence[Any]) -> list[Reply]:
        """One reply per item, in order. Raises UserError and RunError as `submit` does."""
        futures = [self.submit(item) for item in items]
        try:
            return [future.result() for future in futures]
        finally:
            for future in futures:  # if one raised, skip the rest
                future.cancel()

    def close(self) -> None:
        """Kill all workers. Running items return `crash`; waiting items are canceled."""
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
        except Exception as error:  # noqa: BLE001 - the object's own methods may raise anything
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

    def _start_worker(self) -> Child:
        """Start a child that has built its handler. Raises UserError while no child has ever started, since then the
        user must fix it; afterwards WorkerDied, which loses only this item."""
        if self._closed:
            raise WorkerDied("the process pool is closed")
        worker = Child(self._bare_environment, LOG_LIMIT)
        self._all.add(worker)
        path = [entry or os.getcwd() for entry in sys.path]
        try:
            answer = worker.exchange(pickle.dumps({**self._start_request, "path": path}), self._start_timeout_s)
            problem = answer.get("error")
        except TimeoutError:
            problem = f"the reward's worker was not ready after {self._start_timeout_s:g} s"
        except WorkerDied as error:
            problem = f"{error} while loading the reward"
        if problem is None:
            self._ever_started = True
            return worker
        self._discard(worker)
        if self._subject not in problem:
            problem = f"{self._subject}: {problem}"
        raise WorkerDied(problem) if self._ever_started or self._closed else UserError(problem)

    def _discard(self, worker: Child | None) -> None:
        if worker is not None and worker in self._all:
            self._all.discard(worker)
            worker.discard()


def _ms_since(started: float) -> float:
    return 1000 * (time.perf_counter() - started)
