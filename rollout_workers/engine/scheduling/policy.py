"""Scheduling policies: which rows run in a pass. A policy changes the cost of a completion, never its tokens."""

from __future__ import annotations

from torch import Tensor


class SchedulingPolicy:
    """Continuous batching with shared prefixes, the fastest policy. Subclasses are the baselines of benchmarks."""

    runs_all_rows = True
    """Whether `choose_rows` returns all rows. Static-shape passes, and so CUDA graphs, require it."""
    shares_prefixes = True
    """Whether a prefix common to several prompts is computed once, and all of them read its keys and values."""

    def choose_rows(self, live: Tensor, loops: Tensor) -> Tensor:
        """Choose the slots of the next pass from `live` int64 [n], the slots of all running samples; at least one
        unless `live` is empty. `loops` int64 [slots] is the 1-based loop that each slot runs next."""
        return live
