"""The rollout workers as the trainer sees them: publish weights, ask for rollouts."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Self

from ouro_rl.core.rollout import CacheOnChange, Rollout, RolloutRequest
from ouro_rl.core.sampling_params import SamplingParams
from rollout_workers.engine.stats import OnRollout, Progress

if TYPE_CHECKING:
    from torch import Tensor


class RolloutPool(ABC):
    """Rollout workers that share one set of weights. The rollouts are the same for any kind of pool and any number of
    workers.

    A context manager: leaving it closes the pool."""

    @abstractmethod
    def publish(
        self, state_dict: Mapping[str, Tensor], version: int, *, in_flight: CacheOnChange | None = None
    ) -> None:
        """Give all workers new weights (a state dict of `OuroForCausalLM`). Later rollouts carry `version`.

        A call of `rollout` in another thread goes on with the weights that it has, and this one waits for it. With
        `in_flight` this one does not wait: the workers take the weights between two passes, under the samples of that
        call, whose rollouts say so (`Rollout.weight_changes`). Raises `RunError` when names or shapes do not fit."""

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
