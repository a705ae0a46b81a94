"""What runs in a pass. A policy changes the cost of a completion, never its tokens."""

from __future__ import annotations

from torch import Tensor


class SchedulingPolicy:
    """Continuous batching with shared prefixes, the fastest. Subclasses are baselines for benchmarks to compare it with."""

    runs_all_rows = True
    """`choose_rows` returns all of its rows. A pass of static shapes, and so a CUDA graph, needs that."""
    shares_prefixes = True
    """A prefix that several prompts have in common is computed once, and its keys and values are read by all of them."""

    def choose_rows(self, live: Tensor, loops: Tensor) -> Tensor:
        """The slots of the next pass, out of the slots `live` int64 [n] of all running samples; at least one where there is one.
        `loops` int64 [slots] is the 1-based loop that each slot would run."""
        return live
