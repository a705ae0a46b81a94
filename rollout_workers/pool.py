"""The rollout workers as the trainer sees them: publish weights, ask for rollouts. In process, or any number of Ray actors."""

from __future__ import annotations

import itertools
import json
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from ouro_rl.core.rollout import Rollout, RolloutRequest
from ouro_rl.core.sampling_params import SamplingParams
from rollout_workers.engine.stats import OnRollout, Progress
from rollout_workers.worker import RolloutWorker

if TYPE_CHECKING:
    from torch import Tensor


class RolloutPool:
    """`workers` Ray actors, or one worker in this process when it is 0; the same rollouts for any number of them.

    `model_config` is the content of a config.json, or a folder or hub id that has one (the weights come by `publish`). `cpus` and
    `gpus` are what each actor gets, one torch thread a CPU; the worker in this process shares the process's threads. Actors start in
    the background. A context manager: leaving it ends the actors."""

    def __init__(
        self,
        workers: int,
        model_config: Mapping[str, Any] | str | os.PathLike,
        *,
        dtype: str = "float32",
        max_batch: int = 256,
        kv_memory_gib: float | None = None,
        prefill_rows: int | None = None,
        exact: bool = True,
        device: str = "auto",
        cpus: float = 1,
        gpus: float = 0,
    ):
        self.dtype = dtype
        self.local: RolloutWorker | None = None
        self.remote = None
        content = read_config(model_config)
        limits = {"max_batch": max_batch, "kv_memory_gib": kv_memory_gib, "prefill_rows": prefill_rows, "exact": exact}
        if workers == 0:
            self.local = RolloutWorker(content, dtype=dtype, device=device, **limits)
            return
        if device == "auto":  # a worker that was given no GPU keeps off those that it may see
            device = "cuda" if gpus else "cpu"
        from rollout_workers.actor import ActorWorkers  # Ray is imported where it is used

        self.remote = ActorWorkers(
            workers, content, dtype=dtype, device=device, threads=max(1, math.ceil(cpus)), cpus=cpus, gpus=gpus, **limits
        )  # fmt: skip

    def publish(self, state_dict: Mapping[str, Tensor], version: int) -> None:
        """Give all workers new weights (a state dict of `OuroForCausalLM`); the rollouts they make from now on carry `version`."""
        if self.local is not None:
            self.local.load_weights(state_dict, version)
            return
        import torch

        from rollout_workers.weight_sync import packed

        self.remote.load_weights(packed(state_dict, getattr(torch, self.dtype)), version)

    def rollout(
        self,
        requests: Sequence[RolloutRequest],
        params: SamplingParams,
        on_progress: Progress | None = None,
        on_rollout: OnRollout | None = None,
    ) -> list[Rollout]:
        """All samples of all requests, in the order of the requests and of their seeds. `on_rollout` hears of rollouts while
        others still run: of each at most once, and maybe not of the last ones.

        Raises `UserError` for a prompt that does not fit, `RunError` when a worker is lost for good or has no weights."""
        if self.local is not None:
            return self.local.rollout(requests, params, on_progress, on_rollout)
        hands = [hand for hand in deal([len(request.seeds) for request in requests], len(self.remote)) if hand]
        firsts = list(itertools.accumulate((len(request.seeds) for request in requests), initial=0))
        places = [[firsts[i] + k for i in hand for k in range(len(requests[i].seeds))] for hand in hands]

        def tell(worker: int, part: list[tuple[int, Rollout]]) -> None:
            for place, rollout in part:
                on_rollout(places[worker][place], rollout)

        answers = self.remote.ask(
            "rollout", [([requests[i] for i in hand], params) for hand in hands], on_progress, on_rollout and tell
        )
        by_request: list[list[Rollout]] = [[] for _ in requests]
        for hand, answer in zip(hands, answers, strict=True):
            rollouts = iter(answer)
            for i in hand:
                by_request[i] = [next(rollouts) for _ in requests[i].seeds]
        return [rollout for group in by_request for rollout in group]

    def description(self) -> str:
        """How the workers compute, and why, in one line. All are asked: they may stand on different machines."""
        if self.local is not None:
            return self.local.description()
        return "; ".join(sorted(set(self.remote.ask("description", [()] * len(self.remote)))))

    def fingerprints(self) -> list[tuple[int | None, str]]:
        """(version, hash of the weights) of every worker."""
        if self.local is not None:
            return [self.local.fingerprint()]
        return self.remote.ask("fingerprint", [()] * len(self.remote))

    def close(self) -> None:
        """End the actors, and Ray where this pool started it."""
        if self.remote is not None:
            self.remote.close()
        self.local = self.remote = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def describe_start(workers: int) -> str:
    """What is waited for when a pool is first asked for something."""
    if not workers:
        return "Preparing the rollout engine"
    return f"Starting {workers} rollout worker{'s' if workers > 1 else ''} with Ray; the first time they also compile their kernels"


def deal(sizes: Sequence[int], hands: int) -> list[list[int]]:
    """Share items out so that the hands' sizes are nearly equal: the largest first, always to the smallest hand."""
    loads, dealt = [0] * hands, [[] for _ in range(hands)]
    for item in sorted(range(len(sizes)), key=lambda item: -sizes[item]):
        smallest = loads.index(min(loads))
        loads[smallest] += sizes[item]
        dealt[smallest].append(item)
    return [sorted(hand) for hand in dealt]


def read_config(model_config: Mapping[str, Any] | str | os.PathLike) -> Mapping[str, Any] | str:
    """The content of a local config.json, so that workers on other machines need no such folder; a hub id stays as it is."""
    if isinstance(model_config, Mapping):
        return dict(model_config)
    file = Path(model_config) / "config.json"
    return json.loads(file.read_text()) if file.is_file() else str(model_config)
