"""An evaluation that is killed goes on where it was, and leaves the files of one that was not."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ouro_rl.cli import main as cli
from ouro_rl.core.jsonl import read_jsonl
from rollout_workers.worker import RolloutWorker
from tests.references.places import CONFIGS

ARGUMENTS = [
    "eval", "--model", str(CONFIGS / "tiny_ouro"), "--benchmark", "arithmetic,hops", "--limit", "24", "--samples", "2",
    "--depth", "1,4", "--sample-gate", "--max-new-tokens", "16,40", "--max-loops", "60", "--seed", "5",
]  # fmt: skip
ANSWERS = 2 * 24 * 3 * 2
"""Sampled ones: benchmarks, problems, rules, samples."""
BUDGETS = 3


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("whole") / "out"
    assert cli.main([*ARGUMENTS, "--out", str(out)]) == 0
    return out


def figures(out: Path) -> dict:
    result = json.loads((out / "eval.json").read_text())
    result.pop("timing")
    return result


def same_results(one: Path, other: Path) -> bool:
    """All but the seconds: bytes of the samples, and the figures."""
    names = ("samples.jsonl", "frontier.svg")
    return all((one / n).read_bytes() == (other / n).read_bytes() for n in names) and figures(one) == figures(other)


def test_what_an_evaluation_leaves(whole: Path) -> None:
    names = {"eval.json", "samples.jsonl", "request.json", "frontier.png", "frontier.svg", "index.html"}
    assert {path.name for path in whole.iterdir()} == names
    samples, result = list(read_jsonl(whole / "samples.jsonl")), figures(whole)
    assert len(samples) == ANSWERS * BUDGETS
    assert [row["name"] for row in result["rows"][:4]] == [
        "fixed 1, 16 tokens", "fixed 1, 40 tokens", "fixed 1, 60 loops", "fixed 4, 16 tokens",
    ]  # fmt: skip
    assert [row["benchmark"] for row in result["rows"]] == ["arithmetic"] * 9 + ["hops"] * 9
    for row in result["rows"]:
        own = [s for s in samples if (s["benchmark"], s["row"]) == (row["benchmark"], row["name"])]
        assert [(s["problem"], s["sample"]) for s in own] == [(p, k) for p in range(24) for k in range(2)]
        assert row["accuracy"] == sum(s["value"] == 1.0 for s in own) / 48
        assert row["loops_per_answer"] == pytest.approx(sum(sum(s["depths"]) for s in own) / 48)
        assert row["pass_at_k"]["1"]["value"] == pytest.approx(row["accuracy"])
        assert "loops" not in row["name"] or all(sum(s["depths"]) <= 60 for s in own)
        assert "16" not in row["name"] or all(len(s["completion_ids"]) <= 16 for s in own)


def test_killed_at_a_random_moment_and_restarted(whole: Path, tmp_path: Path) -> None:
    out, least = tmp_path / "out", int.from_bytes(os.urandom(1)) % (ANSWERS * BUDGETS // 2)
    command = [sys.executable, "-m", "ouro_rl", *ARGUMENTS, "--out", str(out)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    partial = out / "samples.partial.jsonl"
    while process.poll() is None and not (partial.exists() and partial.read_bytes().count(b"\n") >= least):
        time.sleep(0.05)
    process.kill()
    process.wait()
    assert cli.main([*ARGUMENTS, "--out", str(out)]) == 0
    assert same_results(whole, out), f"killed after {least} lines"


def test_nothing_is_answered_twice(whole: Path, tmp_path: Path, monkeypatch, capsys) -> None:
    """What the first start has written, the second does not ask for; a finished evaluation asks for nothing."""
    asked: list[int] = []
    genuine = RolloutWorker.rollout

    def counted(self, requests, *arguments):
        asked.append(sum(len(request.seeds) for request in requests))
        return genuine(self, requests, *arguments)

    def interrupted(self, requests, params, on_progress, on_rollout):
        genuine(self, requests[:7], params, on_progress, on_rollout)
        raise KeyboardInterrupt

    arguments = [*ARGUMENTS, "--out", str(tmp_path / "out")]
    monkeypatch.setattr(RolloutWorker, "rollout", interrupted)
    assert cli.main(arguments) == 130
    known = len(list(read_jsonl(tmp_path / "out" / "samples.partial.jsonl")))
    assert 0 < known <= 14 * BUDGETS
    monkeypatch.setattr(RolloutWorker, "rollout", counted)
    assert cli.main(arguments) == 0
    assert sum(asked) == ANSWERS - known // BUDGETS
    assert same_results(whole, tmp_path / "out")
    asked.clear()
    capsys.readouterr()
    assert cli.main(arguments) == 0 and asked == []
    assert "fixed 1, 16 tokens" in capsys.readouterr().out, "the table is shown again"


def test_another_request_is_refused_and_overwrite_replaces(whole: Path, tmp_path: Path, capsys) -> None:
    changed = [*ARGUMENTS, "--out", str(whole), "--seed", "6"]
    before = (whole / "eval.json").read_bytes()
    assert cli.main(changed) == 2
    assert "holds another evaluation (seed was 5 and is 6)" in capsys.readouterr().err
    assert (whole / "eval.json").read_bytes() == before
    small = ["eval", "--model", str(CONFIGS / "tiny_ouro"), "--benchmark", "arithmetic", "--limit", "3"]
    assert cli.main([*small, "--out", str(tmp_path)]) == 0
    assert cli.main([*small[:-1], "4", "--out", str(tmp_path)]) == 2
    assert cli.main([*small[:-1], "4", "--out", str(tmp_path), "--overwrite"]) == 0
    assert figures(tmp_path)["problems"] == 4
