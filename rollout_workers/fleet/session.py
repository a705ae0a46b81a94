"""One call of the pool on one worker: samples are queued while others run, and come back unit by unit."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, Protocol, Self

from ouro_rl.core.errors import RunError
from ouro_rl.core.rollout import CacheOnChange, Rollout
from rollout_workers.fleet.liveness import Pulse


class Running(Protocol):
    """What a session needs of `rollout_workers.engine.generation.Generation`."""

    tokens: int
    finished: int
    rollouts: list[Rollout | None]

    @property
    def done(self) -> bool: ...

    def queue(self, places: Sequence[int]) -> None: ...

    def advance(self) -> int: ...

    def change_weights(self, load: Callable[[], str], version: int, cache: CacheOnChange) -> str: ...

    def __enter__(self) -> Self: ...

    def __exit__(self, *exception: Any) -> None: ...


@dataclass(eq=False, kw_only=True)
class _Asked:
    answer: Future[Any] = field(default_factory=Future)


@dataclass(eq=False, kw_only=True)
class _Unit(_Asked):
    places: Sequence[int]


@dataclass(eq=False, kw_only=True)
class _Weights(_Asked):
    load: Callable[[], str]
    version: int
    cache: CacheOnChange


class Session:
    """Advances a generation in a thread of its own for as long as it has samples. `give` and `change_weights` may be
    called at any time, from any thread. An error of the generation is the answer of all that is asked of it."""

    def __init__(self, generation: Running):
        self._generation = generation
        self._changed = threading.Condition()
        self._new: list[_Unit] = []
        self._held: list[_Unit] = []
        self._weights: list[_Weights] = []
        self._closed = False
        self._error: BaseException | None = None
        self._steps, self._busy_s = 0, 0.0
        self._thread = threading.Thread(target=self._run, name="generation", daemon=True)
        self._thread.start()

    def give(self, places: Sequence[int]) -> Future[list[Rollout]]:
        """Sample these places of the call; the future gets their rollouts, in order."""
        given = _Unit(places=places)
        self._put(given, self._new)
        return given.answer

    def change_weights(self, load: Callable[[], str], version: int, cache: CacheOnChange) -> Future[str]:
        """`Generation.change_weights`, after the pass that is under way; the future gets what `load` returns."""
        change = _Weights(load=load, version=version, cache=cache)
        self._put(change, self._weights)
        return change.answer

    def pulse(self) -> Pulse:
        return Pulse(
            tokens=self._generation.tokens,
            finished=self._generation.finished,
            steps=self._steps,
            busy=bool(self._new or self._held),
            busy_s=self._busy_s,
        )

    def close(self) -> None:
        """End the call after the pass that is under way; what is still in flight is cancelled."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join()

    def _put(self, asked: _Asked, queue: list[Any]) -> None:
        """Append to one of the queues, which are the same lists throughout."""
        with self._changed:
            error = RunError("the call on this worker has ended") if self._closed else self._error
            if error is not None:
                asked.answer.set_exception(error)
                return
            queue.append(asked)
            self._changed.notify()

    def _run(self) -> None:
        try:
            with self._generation as generation:
                while self._take():
                    self._change_weights()
                    if generation.done:
                        continue
                    started = time.monotonic()
                    if generation.advance():
                        self._hand_over()
                    self._busy_s += time.monotonic() - started
                    self._steps += 1
        except BaseException as error:  # noqa: BLE001 - whoever waits for a unit raises it
            self._fail(error)
        else:
            self._fail(RunError("the call on this worker has ended"))

    def _take(self) -> bool:
        """Queue what was given; wait while there is nothing to do. False: the session is closed."""
        with self._changed:
            while not (self._closed or self._new or self._held or self._weights):
                self._changed.wait()
            if self._closed:
                return False
            new = self._new.copy()
            self._new.clear()
            self._held += new
        for given in new:
            self._generation.queue(given.places)
        return True

    def _change_weights(self) -> None:
        while self._weights:
            change = self._weights[0]  # if it fails, `_fail` finds it
            answer = self._generation.change_weights(change.load, change.version, change.cache)
            self._weights.pop(0)
            change.answer.set_result(answer)
            self._hand_over()

    def _hand_over(self) -> None:
        """Answer the units whose samples have all ended."""
        rollouts = self._generation.rollouts
        for given in list(self._held):
            found = [rollout for place in given.places if (rollout := rollouts[place]) is not None]
            if len(found) == len(given.places):
                self._held.remove(given)
                given.answer.set_result(found)

    def _fail(self, error: BaseException) -> None:
        with self._changed:
            self._error = error
            waiting = [*self._held, *self._new, *self._weights]
            for queue in (self._held, self._new, self._weights):
                queue.clear()
        for asked in waiting:
            asked.answer.set_exception(error)
