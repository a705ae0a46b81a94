"""A function without arguments as a CUDA graph: hundreds of launches become one.

A graph repeats the launches of one run: the same kernels on the same addresses with the same shapes. So the function must read and
write tensors that stay where they are, and ask nothing of the device; who owns those tensors drops the graph when one has moved.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable

import torch

WARM_UPS = 2
"""Runs before the capture: kernels are compiled and libraries make their workspaces in them, which a capture does not allow."""


class GraphMemory:
    """What graphs of one owner share: the stream that they are captured on, and the memory of their intermediate results. They never
    run at the same time, and no result outlives a run."""

    def __init__(self, device: torch.device):
        self.stream = torch.cuda.Stream(device)
        self.pool = torch.cuda.graph_pool_handle()
        self.is_refused = False
        """A capture failed: no other is tried."""


class GraphedPass:
    """Calls `function`: itself the first times, as a graph from then on. No call is wasted: warm-ups are runs like any other."""

    def __init__(self, function: Callable[[], None], memory: GraphMemory):
        self.function, self.memory = function, memory
        self.graph: torch.cuda.CUDAGraph | None = None
        self.runs = 0

    def __call__(self) -> None:
        self.runs += 1
        if self.runs <= WARM_UPS:
            self._run_aside()
            return
        if self.graph is None and not self.memory.is_refused:
            self._capture()
        if self.graph is None:
            self.function()
        else:
            self.graph.replay()

    def _capture(self) -> None:
        """Record the function; it does not run. Where that fails its runs stay what they were, with a warning."""
        graph = torch.cuda.CUDAGraph()
        try:
            # thread_local: what other threads of this process do (a data loader that pins memory, say) does not break the capture.
            with torch.cuda.graph(
                graph, pool=self.memory.pool, stream=self.memory.stream, capture_error_mode="thread_local"
            ):
                self.function()
        except RuntimeError as error:
            self.memory.is_refused = True
            warnings.warn(f"passes run without CUDA graphs, and slower: the capture failed with {error}", stacklevel=3)
            return
        self.graph = graph

    def _run_aside(self) -> None:
        """On the stream of the capture: some libraries keep what they prepare by stream."""
        stream = self.memory.stream
        stream.wait_stream(torch.cuda.current_stream(stream.device))
        with torch.cuda.stream(stream):
            self.function()
        torch.cuda.current_stream(stream.device).wait_stream(stream)
