"""A rollout worker as the class of a Ray actor: it answers heartbeats while it samples, and ends with its driver."""

from __future__ import annotations

import asyncio
import functools
import os
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ouro_rl.core.engine_config import EngineConfig
from ouro_rl.core.errors import RunError
from ouro_rl.core.process_id import ProcessId, own_process
from ouro_rl.core.rollout import CacheOnChange, Rollout, RolloutRequest
from ouro_rl.core.sampling_params import SamplingParams
from ouro_rl.core.watchdog import stacks
from rollout_workers.fleet.liveness import Pulse
from rollout_workers.fleet.session import Session
from rollout_workers.packed import Part
from rollout_workers.worker import RolloutWorker

LOOK_S = 1.0
"""Seconds between two looks at whether the driver is still there."""
_STDERR = 2


@dataclass(frozen=True, kw_only=True)
class Greeting:
    """What an actor says of itself when it has started."""

    process: ProcessId
    log: str
    """The file that its messages go to; empty if they do not go to a file."""


class WorkerActor:
    """A `RolloutWorker` behind asynchronous methods: while a call runs in a thread, others are answered.

    `driver`: the process that started it. If that is a process of the same machine, the actor ends with it; elsewhere
    Ray ends the actors of a driver that is gone."""

    def __init__(
        self,
        model_config: Mapping[str, Any] | str | os.PathLike,
        engine: EngineConfig,
        *,
        threads: int,
        driver: ProcessId,
    ):
        if driver.is_here:
            threading.Thread(target=_end_with, args=(driver,), name="driver watch", daemon=True).start()
        self._build = lambda: RolloutWorker(model_config, engine, threads=threads)
        self.worker: Any = None
        self.session: Session | None = None
        self.call: int | None = None
        self.versions: set[int] = set()
        """Of the weights that the call has had."""

    async def greet(self) -> Greeting:
        log = Path(f"/proc/self/fd/{_STDERR}")
        file = os.path.realpath(log) if log.exists() else ""
        return Greeting(process=own_process(), log=file if Path(file).is_file() else "")

    async def build(self) -> None:
        """Make the worker. Raises what `RolloutWorker` raises."""
        self.worker = await asyncio.to_thread(self._build)

    async def pulse(self) -> Pulse:
        """The heartbeat."""
        session = self.session
        return replace(session.pulse(), call=self.call) if session is not None else Pulse()

    async def stacks(self) -> str:
        """Where every thread is."""
        return stacks()

    async def load_weights(self, version: int, in_flight: CacheOnChange | None, *parts: Part) -> str:
        """Load published weights, with `in_flight` under the samples of the call; otherwise the call ends. Returns the
        fingerprint of what the model has then. Each part is an argument of its own, so that Ray gives its arrays as
        views of its store."""
        load = functools.partial(self.worker.load_packed, parts, version)
        if in_flight is not None and self.session is not None:
            fingerprint = await asyncio.wrap_future(self.session.change_weights(load, version, in_flight))
            self.versions.add(version)
            return fingerprint
        await self._end_call()
        return await asyncio.to_thread(load)

    async def begin(self, call: int, requests: Sequence[RolloutRequest], params: SamplingParams) -> None:
        """Prepare a call of the pool. Raises what `RolloutEngine.start` raises."""
        await self._end_call()
        self.session = Session(await asyncio.to_thread(self.worker.start, requests, params))
        self.call, self.versions = call, {self.worker.version}

    async def sample(self, call: int, version: int, places: Sequence[int]) -> list[Rollout]:
        """The rollouts of one unit, once they are finished. Raises RunError if the call is not the one that is asked
        for, or has not had these weights; it may have newer ones since the unit was sent."""
        if self.session is None or self.call != call or version not in self.versions:
            have = f"call {self.call} and weights {self.worker.version}"
            raise RunError(f"a rollout worker has {have}, but was asked for call {call} and weights {version}")
        return await asyncio.wrap_future(self.session.give(places))

    async def description(self) -> str:
        return self.worker.description()

    async def fingerprint(self) -> tuple[int | None, str]:
        return await asyncio.to_thread(self.worker.fingerprint)

    async def _end_call(self) -> None:
        if self.session is not None:
            session, self.session, self.call = self.session, None, None
            await asyncio.to_thread(session.close)


def _end_with(driver: ProcessId) -> None:
    while driver.is_alive:
        time.sleep(LOOK_S)
    os._exit(1)
