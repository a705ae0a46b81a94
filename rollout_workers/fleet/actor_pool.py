"""A pool whose workers are Ray actors."""

from __future__ import annotations

import itertools
import logging
import threading
import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import ray

from ouro_rl.core.engine_config import EngineConfig
from ouro_rl.core.errors import RunError
from ouro_rl.core.process_id import own_process
from ouro_rl.core.rollout import Rollout, RolloutRequest
from ouro_rl.core.sampling_params import SamplingParams
from ouro_rl.core.watchdog import beat
from rollout_workers.engine.stats import OnRollout, Progress
from rollout_workers.fleet.actor import WorkerActor
from rollout_workers.fleet.cluster import Cluster
from rollout_workers.fleet.crew import Crew
from rollout_workers.fleet.dispatch import dispatch
from rollout_workers.fleet.ledger import Ledger, Policy
from rollout_workers.fleet.liveness import Pulse
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
        """Held by the call that uses the workers: weights never change under another one."""

    def publish(self, state_dict: Mapping[str, Tensor], version: int) -> None:
        import torch

        from rollout_workers.weight_sync import pack

        with self._lock:
            self._forget_weights()
            self._order_weights(_stored(pack(state_dict, getattr(torch, self.engine.dtype))), version)
            self.crew.wait_until(self.crew.settled)
            self.version = version

    def _forget_weights(self) -> None:
        """So that the store may forget the old weights before it gets the new ones."""
        self.version = None
        self.crew.forget_units()
        self.crew.orders.pop("begin", None)
        self.crew.orders.pop("load_weights", None)

    def _order_weights(self, stored: _Stored, version: int) -> None:
        def check(worker: int, found: str) -> None:
            if found != stored.fingerprint:
                raise RunError(
                    f"rollout worker {worker} has other weights than were published (version {version}): "
                    "its memory or the way to it is damaged"
                )

        key = (version, time.monotonic_ns())
        arguments = (version, *stored.references)
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
        if self.version is None:
            raise RunError("the rollout workers have no weights yet: publish them first")
        call = _Call(requests, params, self.version, on_rollout)
        skipped = {i for i, request in enumerate(requests) if request.prompt.token_ids in self.set_aside}
        for i in skipped:
            call.fill_in(i)
        key = next(self._calls)
        lean = ray.put([_without_columns(request) for request in requests])
        self.crew.forget_units()
        self.crew.order("begin", Order(key=key, arguments=(key, lean, params)))
        progress = _Progress(key, on_progress)

        def finished(unit: Unit, rollouts: Sequence[Rollout]) -> None:
            progress.add(rollouts)
            call.take(unit, rollouts)

        dispatch(
            self.crew,
            self.plan([len(request.seeds) for request in requests], skipped),
            (key, self.version),
            on_finished=finished,
            on_set_aside=lambda unit: self._set_aside(call, requests[unit.requests[0]], unit),
            on_poll=lambda: progress.show([member.pulse for member in self.crew.members]),
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

    def _set_aside(self, call: _Call, request: RolloutRequest, unit: Unit) -> None:
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


def _stored(parts: Iterable[Part]) -> _Stored:
    """Put weights into the store, part by part."""
    references: list[ray.ObjectRef] = []
    digests: dict[str, str] = {}
    for part in parts:
        references.append(ray.put(part))
        digests |= {name: packed.digest() for name, packed in part.items()}
    return _Stored(references=references, fingerprint=fingerprint_of(digests))


class _Call:
    """The rollouts of a call as they come back."""

    def __init__(
        self,
        requests: Sequence[RolloutRequest],
        params: SamplingParams,
        version: int,
        on_rollout: OnRollout | None,
    ):
        self.requests, self.params, self.version, self.on_rollout = requests, params, version, on_rollout
        self.firsts = list(itertools.accumulate((len(request.seeds) for request in requests), initial=0))
        self.rollouts: list[Rollout | None] = [None] * self.firsts[-1]

    def take(self, unit: Unit, rollouts: Sequence[Rollout]) -> None:
        for place, rollout in zip(unit.places, rollouts, strict=True):
            self._put(place, rollout)

    def fill_in(self, index: int) -> None:
        """For a request whose prompt was set aside in an earlier call."""
        for place in range(self.firsts[index], self.firsts[index + 1]):
            self._put(place, self.lost(index, place))

    def lost(self, index: int, place: int) -> Rollout:
        """What stands for a sample whose prompt is set aside: no tokens."""
        return Rollout(
            prompt_index=self.requests[index].prompt.index,
            sample_index=place - self.firsts[index],
            prompt_ids=self.requests[index].prompt.token_ids,
            completion_ids=(),
            token_logprobs=(),
            depths=(),
            depth_logprobs=(),
            policy_version=self.version,
            temperature=self.params.temperature,
            filters=self.params.filters,
            finish_reason="lost",
            depth_policy=self.params.depth_policy,
        )

    def result(self) -> list[Rollout]:
        """Raises RunError if every prompt was set aside."""
        found = [rollout for rollout in self.rollouts if rollout is not None]
        assert len(found) == len(self.rollouts), "every unit came back or was set aside"
        if found and all(rollout.finish_reason == "lost" for rollout in found):
            raise RunError("rollout workers die with every prompt: not the prompts, but the workers are at fault")
        return found

    def _put(self, place: int, rollout: Rollout) -> None:
        assert self.rollouts[place] is None, "no unit comes back twice"
        self.rollouts[place] = rollout
        if self.on_rollout is not None:
            self.on_rollout(place, rollout)


class _Progress:
    """(completion tokens, finished samples) of a call. They never go down: after a worker was lost they stay where they
    are until what came back, or what the others report, is more."""

    def __init__(self, call: int, tell: Progress | None):
        self._call, self._tell = call, tell
        self._back = self._shown = (0, 0)

    def add(self, rollouts: Sequence[Rollout]) -> None:
        """Count what came back."""
        tokens, finished = self._back
        self._back = (tokens + sum(len(rollout.completion_ids) for rollout in rollouts), finished + len(rollouts))

    def show(self, pulses: Sequence[Pulse]) -> None:
        live = [pulse for pulse in pulses if pulse.call == self._call]
        reported = (sum(pulse.tokens for pulse in live), sum(pulse.finished for pulse in live))
        now = (max(self._shown[0], self._back[0], reported[0]), max(self._shown[1], self._back[1], reported[1]))
        if now != self._shown:
            self._shown = now
            beat("rollouts")
            if self._tell is not None:
                self._tell(*now)


def _without_columns(request: RolloutRequest) -> RolloutRequest:
    """A request with what a worker needs of it: columns may hold whole documents."""
    return replace(request, prompt=replace(request.prompt, messages=[], columns={}))
