"""The cost of probes, and the noise that they take from the gate's gradient."""

from __future__ import annotations

from pathlib import Path

import pytest

from ouro_rl.bench.run import run_bench
from tests.references.tiny_bench import TINY


def test_probes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setattr("ouro_rl.bench.run.QUICK", TINY)
    results = run_bench("probes", quick=True, json_file=tmp_path / "p.json")
    for depth in (1.6, 2.3):
        run = results["probes"]["runs"][str(depth)]
        assert abs(run["mean_depth"] - depth) < 0.5 and results[f"probe_cost_{depth}"] > 0
        assert run["noise"]["gate"] > 1  # the loops that were not sampled no longer add noise
