"""A function without arguments as a CUDA graph: one launch instead of hundreds.

A graph replays the launches of one run: the same kernels on the same addresses with the same shapes. So the function
must read and write tensors that keep their addresses, and must not synchronize with the device; the owner of those
tensors drops the graph when one has moved.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable

import torch

WARM_UPS = 2
"""Runs before the capture: they compile kernels and allocate library workspaces, which a capture does not allow."""


class GraphMemory:
    """Shared by the graphs of one owner: the capture stream and the memory of intermediate results. Sharing is safe
    because the graphs never run at the same time, and no intermediate result outlives a run."""

    def __init__(self, device: torch.device):
        self.stream = torch.cuda.Stream(device)
        self.pool = torch.cuda.graph_pool_handle()
        self.is_refused = False
        """A capture failed: no further capture is tried."""


class GraphedPass:
    """Runs `function`: directly the first `WARM_UPS` times, as a graph from then on. Warm-ups are not captured."""

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
        """Record the function without running it. If that fails, warn and keep calling the function directly."""
        graph = torch.cuda.CUDAGraph()
        try:
            # thread_local: other threads of this process (such as a data loader that pins memory) cannot break the
            # capture.
            with torch.cuda.graph(
                graph, pool=self.memory.pool, stream=self.memory.stream, capture_error_mode="thread_local"
            ):
                self.function()
        except RuntimeError as error:
            self.memory.is_refused = True
            warnings.warn(f"passes run without CUDA graphs, which is slower: the capture failed: {error}", stacklevel=3)
            return
        self.graph = graph

    def _run_aside(self) -> None:
        """Run on the capture stream: some libraries keep their workspaces per stream."""
        stream = self.memory.stream
        stream.wait_stream(torch.cuda.current_stream(stream.device))
        with torch.cuda.stream(stream):
            self.function()
        torch.cuda.current_stream(stream.device).wait_stream(stream)
