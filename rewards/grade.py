"""Scores saved completions, and checks gold answers against themselves."""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ouro_rl.core.atomic_write import write_atomically
from ouro_rl.core.errors import UserError
from ouro_rl.core.jsonl import read_jsonl
from rewards.scorer import ItemScore, Scorer
from rewards.spec import RewardSpec

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
    Raises UserError that names file, line and fix, for a missing file, a line that is no JSON object, a missing field."""
    spec = RewardSpec(reward) if isinstance(reward, str) else reward
    path = Path(path)
    rows = read_rows(path, required_fields(spec))
    with Scorer([spec], workers=workers, timeout_s=timeout_s) as scorer:
        starts = range(0, len(rows), _BATCH)
        scores = [score for start in starts for score in score_rows(scorer, rows[start : start + _BATCH], start + 1)]
    lines = [json.dumps({**row, **_result(score, spec.label)}) for row, score in zip(rows, scores, strict=True)]
    _write(lines, out)
    return _summary(scores, spec.label)


def required_fields(spec: RewardSpec) -> list[str]:
    """What every line must hold for a reward."""
    return ["completion", *(["answer"] if spec.built_in and spec.name in ("math", "exact") else [])]


def score_rows(scorer: Scorer, rows: Sequence[Mapping[str, Any]], first: int = 1) -> list[ItemScore]:
    """The scores of some lines of a file, their other fields being the columns. first: the number of the first of them in
    the file, for errors: the reward may be given one at a time."""
    names = {name for row in rows for name in row} - {
        "prompt",
        "prompts",
        "completion",
        "completions",
        "completion_ids",
    }
    tokens = [row.get("completion_ids") for row in rows]
    return scorer.score(
        [row.get("prompt") or "" for row in rows],
        [row["completion"] for row in rows],
        {name: [row.get(name) for row in rows] for name in sorted(names)},
        None if None in tokens else tokens,
        [f"row {first + i}" for i in range(len(rows))],
    )


def read_rows(path: Path, required: Sequence[str] = ("completion",)) -> list[dict[str, Any]]:
    """The objects of a JSONL file, each with the required fields and a completion that can be read. Raises UserError."""
    rows = []
    for number, row in enumerate(read_jsonl(path), start=1):
        for name in required:
            if name not in row:
                have = ", ".join(sorted(row)) or "none"
                raise UserError(
                    f"{path}, row {number}: the field {name!r} is missing (it has {have}): add or rename it"
                )
        if not isinstance(row["completion"], str | list):
            kind = type(row["completion"]).__name__
            raise UserError(f"{path}, row {number}: `completion` is a {kind}: write a text, or a list of messages")
        if isinstance(row["completion"], list) and not all(isinstance(message, dict) for message in row["completion"]):
            raise UserError(
                f"{path}, row {number}: `completion` is a list, but not of messages ({{role: ..., content: ...}})"
            )
        rows.append(row)
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
    """`out` may be the input: it is replaced when all is written."""
    text = "\n".join(lines) + "\n"
    if out is None:
        sys.stdout.write(text)
        return
    try:
        write_atomically(Path(out), [text])
    except OSError as error:
        raise UserError(f"{out}: cannot be written ({error.strerror}); choose another file with --out") from error


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
