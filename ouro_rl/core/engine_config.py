"""Settings of a rollout engine."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, kw_only=True)
class EngineConfig:
    """Settings of one rollout engine. They set its speed and its memory use. Only `dtype`, `device` and
    `batch_invariant` can change what is sampled, and only through rounding.

    A `RolloutWorker` builds its model with `dtype`, `device` and `batch_invariant`; a `RolloutEngine` takes them from
    the model it is given."""

    dtype: str = "float32"
    """Name of the torch dtype of the weights, of the keys and values, and of the arithmetic."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """`auto`: the worker's GPU if it has one, else the CPU."""
    max_batch: int = 256
    """Maximum number of samples decoded at once; the others wait."""
    kv_memory_gib: float | None = None
    """Memory for keys and values in GiB, never exceeded. None: as much as `max_batch` samples need."""
    prefill_rows: int | None = None
    """Maximum number of prompt positions in one pass. None: all that are waiting."""
    batch_invariant: bool = True
    """Batch-invariant arithmetic: a token's bits do not depend on what else is in its batch."""
    static_passes: bool | None = None
    """Run passes with static shapes, which CUDA graphs can replay. None: on CUDA devices only."""
