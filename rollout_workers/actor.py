"""Rollout workers as Ray actors: starting them, calling them, and restarting dead ones."""

from __future__ import annotations

import contextlib
import logging
import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import ray
from ray.exceptions import RayActorError, RayTaskError

from ouro_rl.core.engine_config import EngineConfig
from ouro_rl.core.errors import OuroRLError, RunError, UserError
from ouro_rl.core.own_names import pinning_hook, working_directory_clashes
from rollout_workers.engine.stats import Progress
from rollout_workers.worker import RolloutWorker

logger = logging.getLogger(__name__)

POLL_SECONDS = 0.5
START_SECONDS = 300
"""Timeout for actors to start: in a cluster without enough resources they would wait forever."""


def start_ray(workers: int, cpus: float, gpus: float) -> bool:
    """Connect to a running Ray cluster, or start a local one with little output; true when Ray was initialized here.

    Reports enough CPUs to Ray even on a smaller machine, which is then slow, not stuck. Raises `UserError` for missing
    GPUs."""
    if ray.is_initialized():
        return False
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    # Ray's coming default; naming it keeps a warning off the progress bar. Workers are told their device anyway.
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    # Ray's own is 15: on a machine with other work the trainer would wait for workers that hardly run.
    os.environ.setdefault("RAY_worker_niceness", "0")
    address = os.environ.get("RAY_ADDRESS")
    local_cpus = None if address else max(os.cpu_count() or 1, math.ceil(workers * cpus))
    # Ray puts the working directory first on the workers' search path.
    environment = {"worker_process_setup_hook": pinning_hook()} if working_directory_clashes() else None
    ray.init(
        address=address,
        num_cpus=local_cpus,
        include_dashboard=False,
        log_to_driver=False,
        logging_level=logging.ERROR,
        runtime_env=environment,
    )
    if not address and ray.cluster_resources().get("GPU", 0) < workers * gpus:
        found = ray.cluster_resources().get("GPU", 0)
        ray.shutdown()
        raise UserError(
            f"{workers} rollout workers with {gpus:g} GPUs each, but this machine has {found:g}: lower "
            "rollout.workers or rollout.worker_gpus"
        )
    return True


class ActorWorkers:
    """`count` actors of `RolloutWorker`. They start in the background; the first call waits for them.

    An actor that dies (killed, out of memory) is restarted with the last weights, with a warning, and its call is
    repeated: the same seeds give the same rollouts. Raises `RunError` when that fails too."""

    def __init__(
        self,
        count: int,
        model_config: Mapping[str, Any] | str,
        engine: EngineConfig,
        *,
        threads: int,
        cpus: float,
        gpus: float,
    ):
        self.owns_ray = start_ray(count, cpus, gpus)
        # Two threads per actor: one works, one reports progress.
        make_actor: Any = ray.remote  # its types know no `max_concurrency`
        remote = make_actor(num_cpus=cpus, num_gpus=gpus, max_concurrency=2)(RolloutWorker)
        self._start: Callable[[], Any] = lambda: remote.remote(model_config, engine, threads=threads)
        self.actors = [self._start() for _ in range(count)]
        self._wants = f"{count} rollout workers with {cpus:g} CPUs and {gpus:g} GPUs each"
        self._started = False
        self.weights: tuple[ray.ObjectRef, int] | None = None

    def __len__(self) -> int:
        return len(self.actors)

    def load_weights(self, state: dict, version: int) -> None:
        self.weights = (ray.put(state), version)
        self.ask("load_weights", [self.weights] * len(self))

    def ask(
        self,
        method: str,
        arguments: Sequence[tuple],
        on_progress: Progress | None = None,
        on_finished: Callable[[int, list], None] | None = None,
    ) -> list[Any]:
        """Call `method` on the first len(arguments) workers in parallel; returns their results in order. Meanwhile
        `on_progress` gets the sums of their counts, and `on_finished` a worker's index and what it has finished since
        the last call (for a restarted worker: what it had not finished before)."""
        if not self._started:
            self._await_start()
        calls = [getattr(actor, method).remote(*part) for actor, part in zip(self.actors, arguments, strict=False)]
        watch = _Watch(len(calls), on_progress, on_finished)
        watch.follow(dict(enumerate(self.actors[: len(calls)])), calls)
        return [self._answer(index, call, method, arguments[index], watch) for index, call in enumerate(calls)]

    def close(self) -> None:
        for actor in self.actors:
            ray.kill(actor)
        self.actors = []
        if self.owns_ray:
            ray.shutdown()

    def _await_start(self) -> None:
        """Raises RunError when Ray cannot place the actors in time. One that died at startup counts as started:
        `_answer` handles it."""
        starting = [actor.progress.remote() for actor in self.actors]
        if len(ray.wait(starting, num_returns=len(starting), timeout=START_SECONDS)[0]) < len(starting):
            raise RunError(
                f"Ray could not start {self._wants} within {START_SECONDS} s; it has {ray.cluster_resources()}: "
                "lower rollout.workers"
            )
        self._started = True

    def _answer(self, index: int, call: ray.ObjectRef, method: str, arguments: tuple, watch: _Watch) -> Any:
        try:
            return self._result(index, call)
        except RayActorError as error:
            logger.warning("rollout worker %d died and is started again: %s", index, _first_line(error))
            self.actors[index] = actor = self._start()
        try:
            if self.weights is not None and method != "load_weights":
                self._result(index, actor.load_weights.remote(*self.weights))
            again = getattr(actor, method).remote(*arguments)
            watch.follow({index: actor}, [again])
            return self._result(index, again)
        except RayActorError as error:
            raise RunError(
                f"rollout worker {index} died, was started again and died again: {_first_line(error)}"
            ) from error

    def _result(self, index: int, call: ray.ObjectRef) -> Any:
        try:
            return ray.get(call)
        except RayTaskError as error:
            if isinstance(error.cause, OuroRLError):
                raise error.cause from error
            raise RunError(f"rollout worker {index} failed: {error.cause!r}") from error


class _Watch:
    """Reports the workers' progress in one call, also when one of them is restarted and called again."""

    def __init__(
        self,
        count: int,
        on_progress: Progress | None,
        on_finished: Callable[[int, list], None] | None,
    ):
        self._on_progress, self._on_finished = on_progress, on_finished
        self._counts = [(0, 0)] * count
        self._told: list[set[int]] = [set() for _ in range(count)]

    def follow(self, actors: Mapping[int, Any], calls: list[ray.ObjectRef]) -> None:
        """Report on these actors until all their calls have ended, successfully or not. A dead actor does not block:
        its last counts remain until it is followed again and has passed them."""
        if self._on_progress is None and self._on_finished is None:
            return
        floors = list(self._counts)
        seen = dict.fromkeys(actors, 0)
        while len(ray.wait(calls, num_returns=len(calls), timeout=POLL_SECONDS)[0]) < len(calls):
            if self._on_progress is not None:
                for index, counts in _answers({index: actor.progress.remote() for index, actor in actors.items()}):
                    self._counts[index] = max(floors[index], counts)
                self._on_progress(
                    sum(tokens for tokens, _ in self._counts), sum(finished for _, finished in self._counts)
                )
            if self._on_finished is not None:
                for index, part in _answers(
                    {index: actor.finished.remote(seen[index]) for index, actor in actors.items()}
                ):
                    seen[index] += len(part)
                    new = [one for one in part if one[0] not in self._told[index]]
                    self._told[index].update(place for place, _ in new)
                    self._on_finished(index, new)


def _answers(asked: Mapping[int, ray.ObjectRef]) -> Iterator[tuple[int, Any]]:
    """The answers of the actors that are alive."""
    for index, answer in asked.items():
        with contextlib.suppress(RayActorError):  # `_answer`, which waits for its call, handles it
            yield index, ray.get(answer)


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0]
