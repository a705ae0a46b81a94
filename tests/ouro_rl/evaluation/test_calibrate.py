"""Calibration: the interval, the choice, and the command."""

from __future__ import annotations

import json
import math
import random
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from ouro_rl.cli import main as cli
from ouro_rl.core.rollout import Rollout
from ouro_rl.core.sampling_params import DepthPolicy, ExitRule
from ouro_rl.evaluation.calibrate import ThresholdRow, choose, paired_interval, row_of, table
from ouro_rl.evaluation.under_rules import RuleAnswers


def answers(rule: ExitRule, grades: list[float | None], depth: int, cut_off: int = 0) -> RuleAnswers:
    """One answer for each grade; the first `cut_off` of them reached the maximum length."""
    rollout = Rollout(
        prompt_index=0, sample_index=0, prompt_ids=(1,), completion_ids=(1, 1), token_logprobs=(0.0, 0.0),
        depths=(depth, depth), depth_logprobs=(0.0, 0.0), policy_version=0, temperature=0.0, finish_reason="stop",
    )  # fmt: skip
    rollouts = [replace(rollout, finish_reason="length")] * cut_off + [rollout] * (len(grades) - cut_off)
    return RuleAnswers(rule=rule, policy=DepthPolicy(), grades=grades, rollouts=rollouts)


def test_a_row_counts_pairs():
    full = answers(ExitRule(kind="fixed", value=4), [1.0, 1.0, 0.0, 0.0, None, 1.0], 4)
    row = row_of(full, answers(ExitRule(kind="threshold", value=0.5), [1.0, 0.0, 1.0, 0.0, 1.0, 0.0], 2, cut_off=3))
    assert (row.threshold, row.n, row.full_accuracy, row.accuracy) == (0.5, 5, 0.6, 0.4)
    assert row.loss == pytest.approx(0.2) and (row.loops_per_answer, row.full_loops_per_answer) == (4, 8)
    assert (row.loss_low, row.loss_high) == paired_interval(2, 1, 5)
    assert (row.cut_off, row.full_cut_off) == (0.5, 0.0)
    (full_depth, _, at_half) = table([row], 0.01).splitlines()
    assert full_depth.endswith("8.0 loops per answer, 0.0% cut off") and "4.0     50.0%  may lose" in at_half


def test_the_interval_by_hand():
    # 12 of 500 lost, 4 won: with half a problem in each outcome, (12.5 - 4.5) / 502, variance (17/502 - d^2) / 502.
    center = 8 / 502
    half = 1.959964 * math.sqrt((17 / 502 - center**2) / 502)
    assert paired_interval(12, 4, 500) == pytest.approx((center - half, center + half), abs=1e-7)
    low, high = paired_interval(0, 0, 500)
    assert low == -high and 0 < high < 0.01, "no difference among 500 is not certainty"
    assert paired_interval(4, 12, 500) == pytest.approx(tuple(-end for end in reversed(paired_interval(12, 4, 500))))


def test_the_interval_covers():
    """In repeated draws the true loss lies within the interval about 95 times in 100."""
    rng = random.Random(0)
    covered = 0
    for _ in range(1000):
        draws = [rng.random() for _ in range(200)]
        lost, won = sum(value < 0.04 for value in draws), sum(0.04 <= value < 0.06 for value in draws)
        low, high = paired_interval(lost, won, 200)
        covered += low <= 0.02 <= high
    assert 930 <= covered <= 980


def row(threshold: float, high: float) -> ThresholdRow:
    return ThresholdRow(
        threshold=threshold, accuracy=0.5, full_accuracy=0.5, loss=0.0, loss_low=-high, loss_high=high, n=9,
        loops_per_answer=1.0, full_loops_per_answer=2.0, cut_off=0.0, full_cut_off=0.0,
    )  # fmt: skip


def test_thresholds_are_tested_from_the_most_cautious_down():
    rows = [row(0.3, 0.005), row(0.5, 0.02), row(0.7, 0.009), row(0.9, 0.001)]
    chosen = choose(rows, 0.01)
    assert chosen is not None and chosen.threshold == 0.7, "0.3 comes after one that failed"
    assert choose(rows, 0.0005) is None


def test_the_command(random_checkpoint: Path, tmp_path: Path, capsys):
    checkpoint = Path(shutil.copytree(random_checkpoint, tmp_path / "checkpoint"))
    before = json.loads((checkpoint / "config.json").read_text())
    command = ["gate", "calibrate", "--model", str(checkpoint), "--benchmark", "arithmetic", "--limit", "12"]
    command += ["--max-new-tokens", "6", "--thresholds", "0.5,0.9", "--out", str(tmp_path / "found.json")]
    assert cli.main([*command, "--max-loss", "1"]) == 1, "12 problems cannot show so little"
    assert "with 12 problems, threshold" in capsys.readouterr().err
    assert json.loads((tmp_path / "found.json").read_text())["threshold"] is None
    assert cli.main([*command, "--max-loss", "40", "--write"]) == 0
    record = json.loads((tmp_path / "found.json").read_text())
    assert record["threshold"] == 0.5 and [row["threshold"] for row in record["rows"]] == [0.5, 0.9]
    assert all(row["n"] == 12 and row["full_loops_per_answer"] == 24 for row in record["rows"])
    after = json.loads((checkpoint / "config.json").read_text())
    assert after == before | {"early_exit_threshold": 0.5}
    assert "threshold 0.5: loses +0.0% [" in capsys.readouterr().out
