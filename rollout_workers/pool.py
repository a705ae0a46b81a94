"""The rollout workers as the trainer sees them: publish weights, ask for rollouts."""

from __future__ import annotations

import itertools
import json
import math
import os
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from ouro_rl.core.engine_config import EngineConfig
from ouro_rl.core.rollout import Rollout, RolloutRequest
from ouro_rl.core.sampling_params import SamplingParams
from rollout_workers.engine.stats import OnRollout, Progress
from rollout_workers.worker import RolloutWorker

if TYPE_CHECKING:
    from torch import Tensor

ModelConfig = Mapping[str, Any] | str | os.PathLike
"""The content of a config.json, or a folder or Hugging Face Hub id that has one. No weights are read from there: they
are published to the workers."""


class RolloutPool(ABC):
    """Rollout workers that share one set of weights. The rollouts are the same for any kind of pool and any number of
    workers.

    A context manager: leaving it closes the pool."""

    @abstractmethod
    def publish(self, state_dict: Mapping[str, Tensor], version: int) -> None:
        """Give all workers new weights (a state dict of `OuroForCausalLM`). Later rollouts carry `version`.

        Raises `RunError` when names or shapes do not fit."""

    @abstractmethod
    def rollout(
        self,
        requests: Sequence[RolloutRequest],
        params: SamplingParams,
        on_progress: Progress | None = None,
        on_rollout: OnRollout | None = None,
    ) -> list[Rollout]:
        """All samples of all requests, in the order of the requests and of their seeds. `on_rollout` is called with
        finished rollouts while others still run: at most once per rollout, and possibly not for the last ones.

        Raises `UserError` for a prompt that does not fit, `RunError` when a worker is lost for good or has no
        weights."""

    @abstractmethod
    def description(self) -> str:
        """How the workers compute, and why, in one line."""

    @abstractmethod
    def fingerprints(self) -> list[tuple[int | None, str]]:
        """(version, hash of the weights) of every worker."""

    @abstractmethod
    def close(self) -> None:
        """Release what the pool holds. It cannot be used afterwards."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


class LocalPool(RolloutPool):
    """One worker in this process, which shares the process's threads."""

    def __init__(self, model_config: ModelConfig, engine: EngineConfig):
        self.worker = RolloutWorker(read_config(model_config), engine)

    def publish(self, state_dict: Mapping[str, Tensor], version: int) -> None:
        self.worker.load_weights(state_dict, version)

    def rollout(
        self,
        requests: Sequence[RolloutRequest],
        params: SamplingParams,
        on_progress: Progress | None = None,
        on_rollout: OnRollout | None = None,
    ) -> list[Rollout]:
        return self.worker.rollout(requests, params, on_progress, on_rollout)

    def description(self) -> str:
        return self.worker.description()

    def fingerprints(self) -> list[tuple[int | None, str]]:
        return [self.worker.fingerprint()]

    def close(self) -> None:
        del self.worker


class ActorPool(RolloutPool):
    """`workers` Ray actors. They start in the background; closing the pool ends them, and Ray if this pool started it.

    `cpus` and `gpus` are what each actor reserves; it runs one torch thread per CPU."""

    def __init__(self, workers: int, model_config: ModelConfig, engine: EngineConfig, *, cpus: float, gpus: float):
        from rollout_workers.actor import ActorWorkers  # Ray takes a second to import: only where there are actors

        if engine.device == "auto":  # an actor without a GPU of its own stays off the GPUs that it can see
            engine = replace(engine, device="cuda" if gpus else "cpu")
        self.dtype = engine.dtype
        threads = max(1, math.ceil(cpus))
        self.actors = ActorWorkers(workers, read_config(model_config), engine, threads=threads, cpus=cpus, gpus=gpus)

    def publish(self, state_dict: Mapping[str, Tensor], version: int) -> None:
        import torch

        from rollout_workers.weight_sync import packed

        self.actors.load_weights(packed(state_dict, getattr(torch, self.dtype)), version)

    def rollout(
        self,
        requests: Sequence[RolloutRequest],
        params: SamplingParams,
        on_progress: Progress | None = None,
        on_rollout: OnRollout | None = None,
    ) -> list[Rollout]:
        hands = [hand for hand in deal([len(request.seeds) for request in requests], len(self.actors)) if hand]
        firsts = list(itertools.accumulate((len(request.seeds) for request in requests), initial=0))
        places = [[firsts[i] + k for i in hand for k in range(len(requests[i].seeds))] for hand in hands]

        def tell(worker: int, part: list[tuple[int, Rollout]]) -> None:
            assert on_rollout is not None
            for place, rollout in part:
                on_rollout(places[worker][place], rollout)

        answers = self.actors.ask(
            "rollout", [([requests[i] for i in hand], params) for hand in hands], on_progress, on_rollout and tell
        )
        by_request: list[list[Rollout]] = [[] for _ in requests]
        for hand, answer in zip(hands, answers, strict=True):
            rollouts = iter(answer)
            for i in hand:
                by_request[i] = [next(rollouts) for _ in requests[i].seeds]
        return [rollout for group in by_request for rollout in group]

    def description(self) -> str:
        """All actors are asked: they may run on different machines."""
        return "; ".join(sorted(set(self.actors.ask("description", [()] * len(self.actors)))))

    def fingerprints(self) -> list[tuple[int | None, str]]:
        return self.actors.ask("fingerprint", [()] * len(self.actors))

    def close(self) -> None:
        self.actors.close()


def make_pool(
    workers: int,
    model_config: ModelConfig,
    engine: EngineConfig | None = None,
    *,
    cpus: float = 1,
    gpus: float = 0,
) -> RolloutPool:
    """`workers` Ray actors with `cpus` and `gpus` each, or one worker in this process when `workers` is 0."""
    engine = engine or EngineConfig()
    if workers == 0:
        return LocalPool(model_config, engine)
    return ActorPool(workers, model_config, engine, cpus=cpus, gpus=gpus)


def describe_start(workers: int) -> str:
    """What the first request to a pool waits for."""
    if not workers:
        return "Preparing the rollout engine"
    return (
        f"Starting {workers} rollout worker{'s' if workers > 1 else ''} with Ray; "
        "the first time they also compile their kernels"
    )


def deal(sizes: Sequence[int], hands: int) -> list[list[int]]:
    """Distribute items over `hands` so that the sums of their sizes are nearly equal: largest item first, each to the
    hand with the smallest sum. Returns the indices of each hand's items, ascending."""
    loads = [0] * hands
    dealt: list[list[int]] = [[] for _ in range(hands)]
    for item in sorted(range(len(sizes)), key=lambda item: -sizes[item]):
        smallest = loads.index(min(loads))
        loads[smallest] += sizes[item]
        dealt[smallest].append(item)
    return [sorted(hand) for hand in dealt]


def read_config(model_config: ModelConfig) -> Mapping[str, Any] | str:
    """The content of a local config.json, so that workers on other machines do not need the folder; a Hub id stays as
    it is."""
    if isinstance(model_config, Mapping):
        return dict(model_config)
    file = Path(model_config) / "config.json"
    return json.loads(file.read_text()) if file.is_file() else str(model_config)
