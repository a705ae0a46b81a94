"""When a pass is warmed up, captured and repeated, with a stand-in for CUDA: tests/gpu/test_gpu.py has the real one."""

import contextlib
from types import SimpleNamespace

import pytest
import torch

from rollout_workers.engine.graphs.cuda_graph import WARM_UPS, GraphedPass


class Stream:
    device = torch.device("cpu")

    def wait_stream(self, other):
        pass


@pytest.fixture
def cuda(monkeypatch):
    """Counts of what a fake CUDA was asked for; `fails`: captures do."""
    seen = SimpleNamespace(captures=0, replays=0, capturing=False, fails=False)

    @contextlib.contextmanager
    def graph(made, *, pool, stream, capture_error_mode):
        seen.captures, seen.capturing = seen.captures + 1, True
        yield
        seen.capturing = False
        if seen.fails:
            raise RuntimeError("operation not permitted when stream is capturing")

    class CUDAGraph:
        def replay(self):
            seen.replays += 1

    monkeypatch.setattr(torch.cuda, "CUDAGraph", CUDAGraph)
    monkeypatch.setattr(torch.cuda, "graph", graph)
    monkeypatch.setattr(torch.cuda, "stream", lambda stream: contextlib.nullcontext())
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: Stream())
    return seen


def graphed(seen):
    runs = []
    memory = SimpleNamespace(stream=Stream(), pool=None, is_refused=False)
    return GraphedPass(lambda: runs.append(seen.capturing), memory), runs, memory


def test_every_call_is_one_run(cuda):
    """Itself or by the graph, once a call: the capture is no run."""
    run_pass, runs, _ = graphed(cuda)
    for _ in range(10):
        run_pass()
    assert runs == [False] * WARM_UPS + [True]
    assert (cuda.captures, cuda.replays) == (1, 10 - WARM_UPS)


def test_a_refused_capture_costs_speed_and_says_so(cuda):
    cuda.fails = True
    run_pass, runs, memory = graphed(cuda)
    for _ in range(WARM_UPS):
        run_pass()
    with pytest.warns(UserWarning, match="without CUDA graphs.*operation not permitted"):
        run_pass()
    run_pass()
    assert runs.count(False) == WARM_UPS + 2 and runs.count(True) == 1
    assert memory.is_refused and (cuda.captures, cuda.replays) == (1, 0)
