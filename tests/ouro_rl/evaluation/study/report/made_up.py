"""Made-up results of a study, with answers that are given."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ouro_rl.run_dir.study_result import RuleFigures, StudyResult

MOST_LOOPS = 4
"""A prompt is one token, which runs all of them except under a fixed depth; every loop is a megaflop."""


def rule(
    label: str,
    correct: str,
    loops: Sequence[int],
    tokens: Sequence[int],
    *,
    levels: Mapping[str, Mapping[str, float]] | None = None,
) -> RuleFigures:
    kind, _, value = label.partition(" ")
    right = [mark == "1" for mark in correct if mark != "-"]
    prompt = int(value) if kind == "fixed" else MOST_LOOPS
    return RuleFigures(
        rule=label, kind=kind, value=float(value) if value and kind != "iid" else None,
        accuracy=sum(right) / len(right),
        loops_per_answer=sum(loops) / len(loops), loops_per_token=sum(loops) / sum(tokens),
        tokens_per_answer=sum(tokens) / len(tokens), cut_off=0.0,
        flops_per_answer=1e6 * (prompt + sum(loops) / len(loops)),
        depth_shares=(0.5, 0.5), careful_lines=None,
        by_difficulty=levels if levels is not None else {"1": {"problems": 1, "accuracy": 1.0,
            "loops_per_token": 1.0, "loops_per_answer": 1.0}},
        correct=correct, loops=tuple(loops), tokens=tuple(tokens),
        flops=tuple(1_000_000 * (count + prompt) for count in loops),
    )  # fmt: skip


def result(
    arm: str,
    seed: int,
    rules: Sequence[RuleFigures],
    difficulty: Sequence[int],
    *,
    gate: Mapping[str, Any] | None = None,
    depths: Sequence[float | None] = (3.0, None),
    prices: Sequence[float] = (),
    needed: Sequence[int] | None = None,
) -> StudyResult:
    """Served with the first of `rules`; trained with these settings of the gate, to these curves of mean depth and
    price."""
    curves = {"reward/mean": [0.25, 0.75], "depth/mean": list(depths), "gate/price": list(prices)}
    settings = {"train": {"gate": dict(gate)}} if gate else {}
    return StudyResult(
        study="made_up", arm=arm, seed=seed, config_hash="0", settings=settings, checkpoint="0", served=rules[0].rule,
        minutes=2.0, training={"steps": 2, "logp_gap_max": 0.0, "curves": curves}, difficulty=tuple(difficulty),
        about={}, rules=tuple(rules), needed_loops=None if needed is None else tuple(needed),
    )  # fmt: skip
