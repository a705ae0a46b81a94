"""Makes pools of rollout workers: one worker in this process, or actors of Ray."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ouro_rl.core.engine_config import EngineConfig
from ouro_rl.core.rollout import CacheOnChange, Rollout, RolloutRequest
from ouro_rl.core.sampling_params import SamplingParams
from ouro_rl.core.watchdog import beat
from rollout_workers.engine.stats import OnRollout, Progress
from rollout_workers.fleet.settings import FleetSettings
from rollout_workers.rollout_pool import RolloutPool
from rollout_workers.worker import RolloutWorker

if TYPE_CHECKING:
    from torch import Tensor

ModelConfig = Mapping[str, Any] | str | os.PathLike
"""The content of a config.json, or a folder or Hugging Face Hub id that has one. No weights are read from there: they
are published to the workers."""


class LocalPool(RolloutPool):
    """One worker in this process, which shares the process's threads. It is called by one thread: at a publication no
    sample is under way."""

    def __init__(self, model_config: ModelConfig, engine: EngineConfig):
        self.worker = RolloutWorker(read_config(model_config), engine)

    def publish(
        self, state_dict: Mapping[str, Tensor], version: int, *, in_flight: CacheOnChange | None = None
    ) -> None:
        self.worker.load_weights(state_dict, version)

    def rollout(
        self,
        requests: Sequence[RolloutRequest],
        params: SamplingParams,
        on_progress: Progress | None = None,
        on_rollout: OnRollout | None = None,
    ) -> list[Rollout]:
        def note(tokens: int, finished: int) -> None:
            beat("rollouts")
            if on_progress is not None:
                on_progress(tokens, finished)

        return self.worker.rollout(requests, params, note, on_rollout)

    def description(self) -> str:
        return self.worker.description()

    def fingerprints(self) -> list[tuple[int | None, str]]:
        return [self.worker.fingerprint()]

    def close(self) -> None:
        del self.worker


def make_pool(
    workers: int,
    model_config: ModelConfig,
    engine: EngineConfig | None = None,
    settings: FleetSettings | None = None,
) -> RolloutPool:
    """`workers` Ray actors (by default of one CPU each), or one worker in this process when `workers` is 0.

    Raises UserError if there is no Ray cluster where the settings say, or too few GPUs."""
    engine = engine or EngineConfig()
    if workers == 0:
        return LocalPool(model_config, engine)
    from rollout_workers.fleet.actor_pool import ActorPool  # Ray takes a second to import: only where there are actors

    return ActorPool(workers, read_config(model_config), engine, settings or FleetSettings())


def describe_start(workers: int) -> str:
    """What the first request to a pool waits for."""
    if not workers:
        return "Preparing the rollout engine"
    return (
        f"Starting {workers} rollout worker{'s' if workers > 1 else ''} with Ray; "
        "the first time they also compile their kernels"
    )


def read_config(model_config: ModelConfig) -> Mapping[str, Any] | str:
    """The content of a local config.json, so that workers on other machines do not need the folder; a Hub id stays as
    it is."""
    if isinstance(model_config, Mapping):
        return dict(model_config)
    file = Path(model_config) / "config.json"
    return json.loads(file.read_text()) if file.is_file() else str(model_config)
