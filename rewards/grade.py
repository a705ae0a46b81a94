"""Scores saved completions from a file of rows: JSON lines (also .gz), CSV or Parquet."""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

from ouro_rl.core.atomic_write import write_atomically
from ouro_rl.core.errors import UserError
from ouro_rl.core.jsonl import dotted_value
from ouro_rl.core.paths import check_writable_file
from ouro_rl.core.row_files import is_row_file, read_row_file
from rewards.scorer import ItemScore, Scorer
from rewards.spec import RewardSpec

_BATCH = 256


@dataclass(frozen=True, kw_only=True)
class GradeSummary:
    """Result of `grade_file`."""

    items: int
    scored: int
    """Number of items with a value."""
    mean: float | None
    """Mean value of the scored items; None if no item was scored."""
    statuses: dict[str, int]
    details: tuple[str, ...]
    """The first few distinct failures of the reward itself (crashes and timeouts)."""

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
    """Score a file whose rows have the field `completion` and the fields that the reward needs (`answer` or `solution`
    for math). Shows its progress on a terminal. Each row is written to `out`, or to standard output, with `value`,
    `status`, `extracted`, `detail` and `ms`.

    timeout_s: seconds per item of a built-in reward, and per batch of a custom one.
    Raises UserError, which names file, line and fix, for a missing file, a line that is not a JSON object, or a
    missing field."""
    spec = RewardSpec(reward) if isinstance(reward, str) else reward
    path = Path(path)
    if out is not None:
        _check_out(Path(out))
    rows = read_rows(path, required_fields(spec))
    with Scorer([spec], workers=workers, timeout_s=timeout_s) as scorer:
        scores: list[ItemScore] = []
        with tqdm(total=len(rows), desc=f"grade: {spec.label}", unit="row", disable=None) as bar:
            for start in range(0, len(rows), _BATCH):
                scores += score_rows(scorer, rows[start : start + _BATCH], start + 1)
                bar.update(len(scores) - start)
    lines = [json.dumps({**row, **_result(score, spec.label)}) for row, score in zip(rows, scores, strict=True)]
    _write(lines, out)
    return _summary(scores, spec.label)


def required_fields(spec: RewardSpec) -> list[tuple[str, ...]]:
    """The fields that every row must have for this reward; of several names, one."""
    golds = {"math": ("answer", "solution"), "exact": ("answer",)} if spec.built_in else {}
    return [("completion",), *([golds[spec.name]] if spec.name in golds else [])]


def score_rows(scorer: Scorer, rows: Sequence[Mapping[str, Any]], first: int = 1) -> list[ItemScore]:
    """Scores of consecutive rows of a file; all other fields of the rows are passed as columns. first: row number of
    rows[0] in the file, for error messages."""
    names = {name for row in rows for name in row} - {
        "prompt",
        "prompts",
        "completion",
        "completions",
        "completion_ids",
    }
    are_known = all(row.get("completion_ids") is not None for row in rows)
    return scorer.score(
        [row.get("prompt") or "" for row in rows],
        [row["completion"] for row in rows],
        {name: [row.get(name) for row in rows] for name in sorted(names)},
        [row["completion_ids"] for row in rows] if are_known else None,
        [f"row {first + i}" for i in range(len(rows))],
    )


def read_rows(path: Path, required: Sequence[tuple[str, ...]] = (("completion",),)) -> list[dict[str, Any]]:
    """The rows of a file, with null for NaN, as numbers that are missing are stored in columns of floats. Raises
    UserError if a required field is missing, or `completion` or `prompt` has a wrong type."""
    rows = []
    for number, row in enumerate(read_row_file(path), start=1):
        row = {name: dotted_value(row, name) for name in row}
        for names in required:
            if not any(name in row for name in names):
                have, wanted = ", ".join(sorted(row)) or "none", " or ".join(map(repr, names))
                raise UserError(f"{path}, row {number}: the field {wanted} is missing (found {have}): add or rename it")
        prompt = row.get("prompt")
        if not (prompt is None or isinstance(prompt, str) or _is_chat(prompt)):
            raise UserError(
                f"{path}, row {number}: `prompt` is neither a string nor a list of messages: write one of these"
            )
        if not isinstance(row["completion"], str | list):
            value = json.dumps(row["completion"], default=str)[:40]
            raise UserError(f"{path}, row {number}: `completion` is {value}: use a string or a list of messages")
        if isinstance(row["completion"], list) and not _is_chat(row["completion"]):
            raise UserError(
                f"{path}, row {number}: `completion` is a list of other items: "
                "use messages ({role: ..., content: ...})"
            )
        rows.append(row)
    return rows


def _is_chat(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(message, dict) for message in value)


def _result(score: ItemScore, label: str) -> dict[str, Any]:
    verdict = score.verdicts[label]
    return {
        "value": verdict.value,
        "status": verdict.status,
        "extracted": verdict.extracted,
        "detail": verdict.detail,
        "ms": round(verdict.ms, 3),
    }


def _check_out(out: Path) -> None:
    """Raise UserError, before anything is scored, where the rows cannot be written, or would not be what the file's
    name says: the input may be a CSV file that is named by mistake."""
    if is_row_file(out.name) and out.suffix.lower() != ".jsonl":
        raise UserError(f"--out {out}: is written as JSON lines; give a .jsonl file")
    check_writable_file(out, "--out")


def _write(lines: list[str], out: str | Path | None) -> None:
    """Write the lines atomically, since `out` may be the input file."""
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
