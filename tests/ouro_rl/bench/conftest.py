"""A run of the trace that several files look at."""

from __future__ import annotations

import pytest

from ouro_rl.bench.timing import run_engine
from ouro_rl.bench.workload import bench_model, make_requests, trace_seeds
from ouro_rl.core.engine_config import EngineConfig
from rollout_workers.engine.engine import RolloutEngine
from tests.references.tiny_bench import TINY


@pytest.fixture(scope="module")
def tiny_run():
    """A run of the trace by an engine, at batch size 4."""
    model = bench_model(TINY)
    requests = make_requests(TINY, trace_seeds(model, TINY, 4, TINY.tokens), prompt=TINY.prompt)
    return run_engine(RolloutEngine(model, EngineConfig(max_batch=4)), requests, TINY.tokens)
