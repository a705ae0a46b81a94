"""How a rollout engine is set up."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, kw_only=True)
class EngineConfig:
    """Settings of one rollout engine. They decide its speed and its memory; of what is sampled, `dtype`, `device` and `exact` decide the
    rounding.

    A `RolloutWorker` builds the model by `dtype`, `device` and `exact`; a `RolloutEngine` takes them from the model that it is given."""

    dtype: str = "float32"
    """Name of a torch dtype: of the weights, the keys and values, and the arithmetic."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """`auto`: a GPU where the worker has one, else the CPU."""
    max_batch: int = 256
    """Samples that are decoded at once, at most; others wait."""
    kv_memory_gib: float | None = None
    """Memory for keys and values in GiB, never exceeded. None: as much as `max_batch` samples need."""
    prefill_rows: int | None = None
    """Prompt positions in one pass, at most. None: all that wait."""
    exact: bool = True
    """Batch-invariant arithmetic: a token's bits do not depend on what else is in its batch."""
    static_passes: bool | None = None
    """Passes of static shapes, which a CUDA graph can replay. None: on CUDA devices."""
