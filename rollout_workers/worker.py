"""One worker: an engine, and weights that change under it. The same class runs in process and as a Ray actor.

torch and transformers are imported when a worker is created, so the process that starts actors does not wait for them.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ouro_rl.core.engine_config import EngineConfig
from ouro_rl.core.errors import RunError
from ouro_rl.core.rollout import Rollout, RolloutRequest
from ouro_rl.core.sampling_params import SamplingParams
from rollout_workers.engine.stats import OnRollout, Progress

if TYPE_CHECKING:
    from torch import Tensor

    from rollout_workers.engine.generation import Generation
    from rollout_workers.packed import Part


class RolloutWorker:
    """Generates rollouts with the weights loaded last.

    `model_config` is the content of a config.json, or a folder or Hub id that has one; weights are never read from
    there. `threads` sets torch's threads for the whole process; None leaves them unchanged."""

    def __init__(
        self,
        model_config: Mapping[str, Any] | str | os.PathLike,
        engine: EngineConfig,
        *,
        threads: int | None = None,
    ):
        import torch

        from ouro_rl.model.configuration_ouro import OuroConfig
        from ouro_rl.model.modeling_ouro import OuroForCausalLM
        from rollout_workers.engine.engine import RolloutEngine

        if threads is not None:
            torch.set_num_threads(threads)
        device = engine.device
        if device == "auto":
            device = "cuda" if torch.cuda.is_available() else "cpu"
        if isinstance(model_config, Mapping):
            config = OuroConfig(**model_config)
        else:
            config = OuroConfig.from_pretrained(model_config)
        with torch.device("meta"):  # no random weights: they are overwritten anyway
            model = OuroForCausalLM(config)
        model = model.to(getattr(torch, engine.dtype)).to_empty(device=device).eval()
        model.tie_weights()
        model.model.batch_invariant = engine.batch_invariant
        self.engine = RolloutEngine(model, engine)
        self.version: int | None = None

    def load_weights(self, state: Mapping[str, Tensor], version: int) -> None:
        """Load a state dict of `OuroForCausalLM`, of any floating-point type, on any device."""
        from rollout_workers.weight_sync import load_state

        self.version = None
        load_state(self.engine.model, state)
        self.version = version

    def load_packed(self, parts: Sequence[Part], version: int) -> str:
        """Load packed weights. Returns the fingerprint of what the model has then."""
        from rollout_workers.weight_sync import tensors_of

        self.load_weights(tensors_of(parts), version)
        return self.fingerprint()[1]

    def start(
        self,
        requests: Sequence[RolloutRequest],
        params: SamplingParams,
        on_rollout: OnRollout | None = None,
        *,
        queued: bool = False,
    ) -> Generation:
        """`RolloutEngine.start`, marked with the version of the weights. Raises RunError if there are none."""
        if self.version is None:
            raise RunError("a rollout worker has no weights yet: publish them first")
        return self.engine.start(requests, params, policy_version=self.version, on_rollout=on_rollout, queued=queued)

    def rollout(
        self,
        requests: Sequence[RolloutRequest],
        params: SamplingParams,
        on_progress: Progress | None = None,
        on_rollout: OnRollout | None = None,
    ) -> list[Rollout]:
        """All samples of all requests, as `RolloutEngine.generate`."""
        with self.start(requests, params, on_rollout, queued=True) as generation:
            return generation.run(on_progress)

    def description(self) -> str:
        """How rows are computed here, and why."""
        return self.engine.description

    def fingerprint(self) -> tuple[int | None, str]:
        """Version and hash of the weights: equal on every worker that has the same ones."""
        from rollout_workers.weight_sync import fingerprint

        return self.version, fingerprint(self.engine.model.state_dict())
