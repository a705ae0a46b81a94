"""`ouro-rl reward bench`: error rates of the `math` reward and of plain Math-Verify on labeled pairs of answers."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ouro_rl.core.errors import UserError
from ouro_rl.core.jsonl import read_jsonl
from rewards.math_grader.reward import MathReward
from rewards.processes.pool import ProcessPool

TIMEOUT_S = 10.0
_SHOWN = 120
"""Characters of a prediction in the list of failures, from its end."""


@dataclass(frozen=True, kw_only=True)
class Tally:
    """Counts of one grader on one set of pairs."""

    grader: str
    pairs: int
    negatives: int
    false_positives: int
    false_negatives: int
    unscored: int
    seconds: float
    failures: tuple[str, ...] = ()
    """The rows that were judged wrongly, with the kind that a row names."""

    @property
    def accuracy(self) -> float:
        return 1 - (self.false_positives + self.false_negatives) / self.pairs


def make_math_verify() -> Callable[[dict[str, str]], bool]:
    """Runs in a worker. Calls Math-Verify as its own documentation does."""
    from math_verify import parse, verify

    logging.getLogger("math_verify").setLevel(logging.ERROR)
    return lambda pair: bool(verify(parse(pair["gold"]), parse(pair["completion"])))


def bench(path: Path, *, workers: int = 2) -> tuple[list[Tally], int]:
    """Run both graders on a JSONL file with the fields `gold`, `prediction` and `expected_equal`, and optionally
    `form`: `answer` (default), which is put in a box, or `response`. Rows with a `policy` have no objective label: they
    are skipped, and their number is returned too. Raises UserError."""
    rows = []
    for number, row in enumerate(read_jsonl(path), start=1):
        if missing := [name for name in ("gold", "prediction", "expected_equal") if name not in row]:
            raise UserError(f"{path}, row {number}: the field {missing[0]!r} is missing: add or rename it")
        rows.append(row)
    core = [row for row in rows if row.get("policy") is None]
    if not core:
        raise UserError(f"{path}: every row depends on a policy: add rows whose `policy` is null")
    completions = [
        row["prediction"] if row.get("form") == "response" else f"\\boxed{{{row['prediction']}}}" for row in core
    ]
    return [_ours(core, completions, workers), _math_verify(core, completions, workers)], len(rows) - len(core)


def markdown(tallies: Iterable[Tally]) -> str:
    """The tallies as a Markdown table."""
    lines = [
        "| grader | pairs | accuracy | false positives | false negatives | unscored | seconds |",
        "| --- " * 7 + "|",
    ]
    for tally in tallies:
        positives = tally.pairs - tally.negatives
        lines.append(
            f"| {tally.grader} | {tally.pairs} | {tally.accuracy:.1%} | {tally.false_positives} of {tally.negatives} | "
            f"{tally.false_negatives} of {positives} | {tally.unscored} | {tally.seconds:.1f} |"
        )
    return "\n".join(lines)


def _ours(rows: Sequence[dict[str, Any]], completions: Sequence[str], workers: int) -> Tally:
    reward = MathReward(workers=workers, timeout_s=TIMEOUT_S, accept="any")
    try:
        reward(["\\boxed{x+1}"], answer=["1+x"])  # exclude the import from the measured time
        started = time.perf_counter()
        values = reward(completions, answer=[row["gold"] for row in rows])
        return _tally("ouro-rl `math`", rows, values, time.perf_counter() - started)
    finally:
        reward.close()


def _math_verify(rows: Sequence[dict[str, Any]], completions: Sequence[str], workers: int) -> Tally:
    with ProcessPool(
        "rewards.math_grader.benchmark:make_math_verify", {}, workers=workers, timeout_s=TIMEOUT_S
    ) as pool:
        pool.run([{"gold": "$1$", "completion": "1"}] * workers)
        started = time.perf_counter()
        pairs = zip(rows, completions, strict=True)
        replies = pool.run([{"gold": _with_dollars(row["gold"]), "completion": text} for row, text in pairs])
        values = [float(reply.value) if reply.status == "ok" else None for reply in replies]
        return _tally("Math-Verify", rows, values, time.perf_counter() - started)


def _with_dollars(gold: str) -> str:
    """Add dollar signs, since Math-Verify parses LaTeX only between dollar signs or in a box."""
    return gold if "$" in gold or "\\boxed" in gold else f"${gold}$"


def _tally(grader: str, rows: Sequence[dict[str, Any]], values: Sequence[float | None], seconds: float) -> Tally:
    failures = [
        f"{row.get('kind', 'row')}: {row['gold']!r}, {row['prediction'][-_SHOWN:]!r} "
        f"({'should be equal' if row['expected_equal'] else 'should differ'})"
        for row, value in zip(rows, values, strict=True)
        if (value == 1.0) != bool(row["expected_equal"])
    ]
    judged = [(bool(row["expected_equal"]), value == 1.0) for row, value in zip(rows, values, strict=True)]
    return Tally(
        grader=grader,
        pairs=len(rows),
        negatives=sum(not equal for equal, _ in judged),
        false_positives=sum(accepted and not equal for equal, accepted in judged),
        false_negatives=sum(equal and not accepted for equal, accepted in judged),
        unscored=sum(value is None for value in values),
        seconds=seconds,
        failures=tuple(failures),
    )
