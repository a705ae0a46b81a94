"""A pool whose workers are Ray actors."""

from __future__ import annotations

import itertools
import logging
import threading
import time
from collections import deque
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import ray

from ouro_rl.core.engine_config import EngineConfig
from ouro_rl.core.errors import RunError
from ouro_rl.core.process_id import own_process
from ouro_rl.core.rollout import CacheOnChange, Rollout, RolloutRequest
from ouro_rl.core.sampling_params import SamplingParams
from rollout_workers.engine.stats import OnRollout, Progress
from rollout_workers.fleet.actor import WorkerActor
from rollout_workers.fleet.call import Call, CallProgress
from rollout_workers.fleet.cluster import Cluster
from rollout_workers.fleet.crew import Crew
from rollout_workers.fleet.dispatch import dispatch
from rollout_workers.fleet.ledger import Ledger, Policy
from rollout_workers.fleet.member import Order
from rollout_workers.fleet.settings import FleetSettings
from rollout_workers.fleet.units import Unit, cut
from rollout_workers.packed import Part, fingerprint_of
from rollout_workers.rollout_pool import RolloutPool

if TYPE_CHECKING:
    from torch import Tensor

logger = logging.getLogger(__name__)

HELD_BACK = {"cpu": 0.5, "cuda": 0.0}
"""By device, the part of a worker's share that waits until somebody is free. On a CPU a pass takes time in proportion
to its rows; on a GPU that is not full, more rows cost nothing, and what is held back comes later."""


class ActorPool(RolloutPool):
    """`workers` Ray actors. They start in the background; closing the pool ends them, and Ray if this pool started it.

    A worker that dies or hangs is replaced and gets the last weights, with a warning; only the units that it had are
    sampled again, and the same seeds give the same rollouts."""

    def __init__(
        self,
        workers: int,
        model_config: Mapping[str, Any] | str,
        engine: EngineConfig,
        settings: FleetSettings,
        *,
        actor: type = WorkerActor,
    ):
        if engine.device == "auto":  # an actor without a GPU of its own stays off the GPUs that it can see
            engine = replace(engine, device="cuda" if settings.gpus else "cpu")
        self.engine, self.settings = engine, settings
        self.cluster = Cluster(workers, settings)
        remote: Any = ray.remote(actor)
        driver = own_process()
        self.crew = Crew(
            lambda index: remote.options(**self.cluster.actor_options(index)).remote(
                model_config, engine, threads=settings.torch_threads, driver=driver
            ),
            workers,
            settings,
        )
        self.version: int | None = None
        self.set_aside: dict[tuple[int, ...], int] = {}
        """Prompts that killed their workers, by their tokens, with their index."""
        self._calls = itertools.count(1)
        self._lock = threading.Lock()
        """Held by the call that uses the workers: only weights in flight change under another one."""
        self._arrived: deque[_InFlight] = deque(maxlen=1)
        """Weights in flight, the newest; whoever holds the lock takes them."""

    def publish(
        self, state_dict: Mapping[str, Tensor], version: int, *, in_flight: CacheOnChange | None = None
    ) -> None:
        import torch

        from rollout_workers.weight_sync import pack

        parts = pack(state_dict, getattr(torch, self.engine.dtype))
        if in_flight is None:
            with self._lock:
                self._arrived.clear()
                self._forget_weights()
                self._publish(_stored(parts), version)
            return
        self._arrived.append(_InFlight(weights=_stored(parts), version=version, cache=in_flight))
        if self._lock.acquire(blocking=False):  # else the call that is under way passes them on
            try:
                self._publish_arrived()
            finally:
                self._lock.release()

    def _publish_arrived(self) -> None:
        """Between two calls."""
        if self._arrived:
            newest = self._arrived.pop()
            self._forget_weights()
            self._publish(newest.weights, newest.version)

    def _pass_on_arrived(self) -> None:
        """During a call. Workers get further work once they have the new weights."""
        if self._arrived:
            newest = self._arrived.pop()
            self._order_weights(newest.weights, newest.version, newest.cache)
            self.version = newest.version

    def _forget_weights(self) -> None:
        """So that the store may forget the old weights before it gets the new ones."""
        self.version = None
        self.crew.forget_units()
        self.crew.orders.pop("begin", None)
        self.crew.orders.pop("load_weights", None)

    def _publish(self, stored: _Stored, version: int) -> None:
        self._order_weights(stored, version)
        self.crew.wait_until(self.crew.settled)
        self.version = version

    def _order_weights(self, stored: _Stored, version: int, in_flight: CacheOnChange | None = None) -> None:
        def check(worker: int, found: str) -> None:
            if found != stored.fingerprint:
                raise RunError(
                    f"rollout worker {worker} has other weights than were published (version {version}): "
                    "its memory or the way to it is damaged"
                )

        key = (version, time.monotonic_ns())
        arguments = (version, in_flight, *stored.references)
        self.crew.order("load_weights", Order(key=key, arguments=arguments, check=check))

    def rollout(
        self,
        requests: Sequence[RolloutRequest],
        params: SamplingParams,
        on_progress: Progress | None = None,
        on_rollout: OnRollout | None = None,
    ) -> list[Rollout]:
        with self._lock:
            return self._rollout(requests, params, on_progress, on_rollout)

    def _rollout(
        self,
        requests: Sequence[RolloutRequest],
        params: SamplingParams,
        on_progress: Progress | None,
        on_rollout: OnRollout | None,
    ) -> list[Rollout]:
        self._publish_arrived()
        if self.version is None:
            raise RunError("the rollout workers have no weights yet: publish them first")
        call = Call(requests, params, self.version, on_rollout)
        skipped = {i for i, request in enumerate(requests) if request.prompt.token_ids in self.set_aside}
        for i in skipped:
            call.fill_in(i)
        key = next(self._calls)
        lean = ray.put([_without_columns(request) for request in requests])
        self.crew.forget_units()
        self.crew.order("begin", Order(key=key, arguments=(key, lean, params)))
        progress = CallProgress(key, on_progress)

        def finished(unit: Unit, rollouts: Sequence[Rollout]) -> None:
            progress.add(rollouts)
            call.take(unit, rollouts)

        def poll() -> None:
            self._pass_on_arrived()
            progress.show([member.pulse for member in self.crew.members])

        dispatch(
            self.crew,
            self.plan([len(request.seeds) for request in requests], skipped),
            lambda: (key, self.version),
            on_finished=finished,
            on_set_aside=lambda unit: self._set_aside(call, requests[unit.requests[0]], unit),
            on_poll=poll,
        )
        return call.result()

    def plan(self, sizes: Sequence[int], skipped: Collection[int]) -> Ledger:
        """How the groups of a call, of these sizes, are given out; those `skipped` are not."""
        held_back = HELD_BACK[self.engine.device]
        policy = Policy(most_samples=self.engine.max_batch, held_back=held_back, tries=self.settings.tries)
        return Ledger(cut(sizes, len(self.crew), skipped=skipped), len(self.crew), policy)

    def utilization(self, seconds: float) -> list[float]:
        """By worker, the share of the last call's `seconds` in which it had something to do."""
        return [pulse.busy_s / seconds for pulse in self.crew.ask("pulse")]

    def description(self) -> str:
        """All actors are asked: they may run on different machines."""
        return "; ".join(sorted(set(self.crew.ask("description"))))

    def fingerprints(self) -> list[tuple[int | None, str]]:
        return self.crew.ask("fingerprint")

    def close(self) -> None:
        self.crew.close()
        self.cluster.close()

    def _set_aside(self, call: Call, request: RolloutRequest, unit: Unit) -> None:
        self.set_aside.setdefault(request.prompt.token_ids, request.prompt.index)
        logger.warning(
            "prompt %d is set aside: its worker died %d times while it ran alone; %d set aside so far",
            request.prompt.index, self.settings.tries, len(self.set_aside),
        )  # fmt: skip
        call.take(unit, [call.lost(unit.requests[0], place) for place in unit.places])


@dataclass(frozen=True, kw_only=True)
class _Stored:
    """Weights in Ray's store."""

    references: Sequence[ray.ObjectRef]
    """One for each part."""
    fingerprint: str


@dataclass(frozen=True, kw_only=True)
class _InFlight:
    weights: _Stored
    version: int
    cache: CacheOnChange


def _stored(parts: Iterable[Part]) -> _Stored:
    """Put weights into the store, part by part."""
    references: list[ray.ObjectRef] = []
    digests: dict[str, str] = {}
    for part in parts:
        references.append(ray.put(part))
        digests |= {name: packed.digest() for name, packed in part.items()}
    return _Stored(references=references, fingerprint=fingerprint_of(digests))


def _without_columns(request: RolloutRequest) -> RolloutRequest:
    """A request with what a worker needs of it: columns may hold whole documents."""
    return replace(request, prompt=replace(request.prompt, messages=[], columns={}))
