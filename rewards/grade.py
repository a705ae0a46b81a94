"""Scores saved completions, and checks gold answers against themselves."""

from __future__ import annotations

import json
import os
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ouro_rl.errors import UserError
from rewards.registry import RewardSpec
from rewards.scorer import ItemScore, Scorer

_BATCH = 256


@dataclass(frozen=True, kw_only=True)
class GradeSummary:
    """What `grade_file` found."""

    items: int
    scored: int
    """Items with a value."""
    mean: float | None
    """Mean value of the scored items; None without any."""
    statuses: dict[str, int]
    details: tuple[str, ...]
    """The first few different failures of the reward itself, in words."""

    def __str__(self) -> str:
        mean = "-" if self.mean is None else f"{self.mean:.4f}"
        counts = ", ".join(f"{status} {count}" for status, count in sorted(self.statuses.items()))
        lines = [f"{self.items} items, {self.scored} scored, mean {mean} ({counts})", *self.details]
        return "\n".join(lines)


def grade_file(
    path: str | Path,
    reward: RewardSpec | str = "math",
    out: str | Path | None = None,
    *,
    workers: int = 2,
    timeout_s: float = 10.0,
) -> GradeSummary:
    """Score a JSONL file whose lines hold `completion`, and what the reward needs (`answer` for math); each line comes
    back with `value`, `status`, `extracted`, `detail` and `ms`, in `out` or on standard output.

    timeout_s: seconds, for an item of a built-in reward and a batch of a custom one.
    Raises UserError that names file, line and mend, for a missing file, a line that is no JSON object, a missing field."""
    spec = RewardSpec(reward) if isinstance(reward, str) else reward
    path = Path(path)
    required = ["completion", *(["answer"] if spec.built_in and spec.name == "math" else [])]
    rows = read_rows(path, required)
    scores: list[ItemScore] = []
    with Scorer([spec], workers=workers, timeout_s=timeout_s) as scorer:
        for start in range(0, len(rows), _BATCH):
            batch = rows[start : start + _BATCH]
            names = {name for row in batch for name in row} - {"prompt", "completion"}
            scores += scorer.score(
                [row.get("prompt") or "" for row in batch],
                [row["completion"] for row in batch],
                {name: [row.get(name) for row in batch] for name in sorted(names)},
            )
    lines = [json.dumps({**row, **_result(score, spec.label)}) for row, score in zip(rows, scores, strict=True)]
    _write(lines, out)
    return _summary(scores, spec.label)


def check_golds(golds: Sequence[str], reward: RewardSpec | str = "math") -> list[int]:
    """Indices of gold answers that do not grade as equal to themselves: leave them out, they can only mislead.
    A gold with a box is its own completion, others are put in one. Raises UserError as `Scorer` does."""
    spec = RewardSpec(reward) if isinstance(reward, str) else reward
    completions = [gold if "\\boxed" in gold else f"\\boxed{{{gold}}}" for gold in golds]
    with Scorer([spec]) as scorer:
        scores = scorer.score([""] * len(golds), completions, {"answer": list(golds)})
    return [index for index, score in enumerate(scores) if score.rewards[spec.label] != 1.0]


def read_rows(path: Path, required: Sequence[str]) -> list[dict[str, Any]]:
    """The objects of a JSONL file, each with the required fields. Raises UserError."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise UserError(f"{path}: there is no such file: correct the path.") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read as UTF-8 text: {error}") from error
    rows = []
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise UserError(f"{path}, line {number}: not JSON ({error.msg}): write one JSON object a line.") from None
        if not isinstance(row, dict):
            raise UserError(f"{path}, line {number}: a {type(row).__name__}, not a JSON object: write one a line.")
        for name in required:
            if name not in row:
                have = ", ".join(sorted(row)) or "none"
                raise UserError(
                    f"{path}, line {number}: the field {name!r} is missing (it has {have}): add or rename it."
                )
        if not isinstance(row["completion"], str | list):
            kind = type(row["completion"]).__name__
            raise UserError(f"{path}, line {number}: `completion` is a {kind}: write a text, or a list of messages.")
        rows.append(row)
    if not rows:
        raise UserError(f"{path}: the file is empty: write one JSON object a line.")
    return rows


def _result(score: ItemScore, label: str) -> dict[str, Any]:
    verdict = score.verdicts[label]
    return {
        "value": verdict.value,
        "status": verdict.status,
        "extracted": verdict.extracted,
        "detail": verdict.detail,
        "ms": round(verdict.ms, 3),
    }


def _write(lines: list[str], out: str | Path | None) -> None:
    text = "\n".join(lines) + "\n"
    if out is None:
        sys.stdout.write(text)
        return
    part = Path(f"{out}.part")  # renamed when whole, so that `out` may be the input, and is never half written
    try:
        part.write_text(text, encoding="utf-8")
        os.replace(part, out)
    except OSError as error:
        raise UserError(f"{out}: cannot be written: {error.strerror}: choose another file with --out.") from error


def _summary(scores: list[ItemScore], label: str) -> GradeSummary:
    values = [value for score in scores if (value := score.rewards[label]) is not None]
    failures = [score.details[label] for score in scores if score.statuses[label] in ("crash", "timeout")]
    return GradeSummary(
        items=len(scores),
        scored=len(values),
        mean=sum(values) / len(values) if values else None,
        statuses=dict(Counter(score.statuses[label] for score in scores)),
        details=tuple(list(dict.fromkeys(failures))[:3]),
    )
