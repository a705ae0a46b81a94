"""Cost by workload: points, straight line, plot."""

from __future__ import annotations

from pathlib import Path

import pytest

from ouro_rl.bench.curves import plot, straight_line
from ouro_rl.bench.page import page
from ouro_rl.bench.run import run_bench
from tests.references.tiny_bench import TINY


def test_curves_and_their_plot(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setattr("ouro_rl.bench.run.QUICK", TINY)
    results = run_bench("curves", quick=True, json_file=tmp_path / "c.json", plot_file=tmp_path / "c.png")
    points = results["curves"]["points"]
    assert {name: [point["x"] for point in line] for name, line in points.items()} == {
        "batch": [1, 2], "context": [8, 16, 32], "group": [1, 2],
    }  # fmt: skip
    read = [point["pass_bytes"] for point in points["context"]]
    assert read[0] < read[1] < read[2]
    assert (tmp_path / "c.png").read_bytes().startswith(b"\x89PNG")
    assert "Cost by workload" in page([tmp_path / "c.json"])
    plot(results["curves"], tmp_path / "again.png")


def test_straight_line():
    line = straight_line([1e6, 2e6, 4e6], [2.0, 3.0, 5.0])
    assert line["seconds_at_zero"] == pytest.approx(1.0)
    assert line["bytes_per_second"] == pytest.approx(1e6)
    assert line["r_squared"] == pytest.approx(1.0)
