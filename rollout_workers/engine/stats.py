"""What an engine counts, and what it reports while it works."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ouro_rl.core.rollout import Rollout

Progress = Callable[[int, int], None]
"""Called from time to time with (completion tokens so far, finished samples so far)."""
OnRollout = Callable[[int, Rollout], None]
"""Called with each rollout as soon as it is finished: (index in the result of `generate`, rollout)."""


@dataclass(kw_only=True)
class EngineStats:
    """Counters since the engine was made (or since they were reset by assigning a fresh one)."""

    passes: int = 0
    rows: int = 0
    """Sample rows of all passes: the loops run for completion tokens."""
    prefill_rows: int = 0
    """Prompt rows of all passes."""
    tokens: int = 0
    finished: int = 0
    cancelled: int = 0
    preemptions: int = 0
    """Samples whose pages were freed and are recomputed later. If frequent, the memory limit is low for `max_batch`."""
    prefix_hits: int = 0
    """Prompt positions that samples found in the cache: from their own group, or a prefix shared with other prompts."""
    peak_pages: int = 0
    peak_bytes: int = 0
    """Peak bytes of keys and values in use."""
