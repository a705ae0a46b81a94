"""What a study keeps of one training run: a small JSON file that its tables and plots are made from."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from ouro_rl.core.atomic_write import write_atomically
from ouro_rl.core.errors import UserError

SCHEMA = 1
"""Version of the format; a file of another version is measured anew."""
RIGHT, WRONG, UNSCORED = "1", "0", "-"


@dataclass(frozen=True, kw_only=True)
class RuleFigures:
    """Greedy answers to the held-out problems under one exit rule; lists have one entry per problem."""

    rule: str
    """Its label, such as `threshold 0.5`."""
    kind: str
    value: float | None
    accuracy: float
    """Share of right answers among those that could be scored."""
    loops_per_answer: float
    loops_per_token: float
    tokens_per_answer: float
    flops_per_answer: float
    """Prompt and answer, products and attention (`ouro_rl/model/flops.py`)."""
    cut_off: float
    """Share of answers that ended at the length limit."""
    depth_shares: tuple[float, ...]
    """Share of answer tokens at depths 1, 2, ..."""
    careful_lines: float | None
    """Share of lines with one operation among those with an operation; None unless the task is arithmetic."""
    by_difficulty: Mapping[str, Mapping[str, float]]
    """Difficulty -> `problems`, `accuracy` (left out where none could be scored) and the four costs above."""
    correct: str
    """One character per problem: 1 right, 0 wrong, - could not be scored."""
    loops: tuple[int, ...]
    """Loops of each answer: the sum of its depths."""
    tokens: tuple[int, ...]
    """Tokens of each answer."""
    flops: tuple[int, ...] | None = None
    """FLOPs of each answer with its prompt; None in results of before 2026-11-29, which lack them."""


@dataclass(frozen=True, kw_only=True)
class StudyResult:
    """One arm at one seed."""

    schema: int = SCHEMA
    study: str
    arm: str
    seed: int
    config_hash: str
    """Of `settings`."""
    settings: Mapping[str, Any]
    """Everything that the figures depend on: `train` (with content hashes instead of paths) and `evaluation`; `set`:
    the keys of the training config that are not at their default."""
    checkpoint: str
    """SHA-256 of the weights that were measured."""
    served: str
    """Label of the exit rule that the arm is served with."""
    minutes: float
    """Of training and measuring."""
    training: Mapping[str, Any] = field(default_factory=dict)
    """`steps`, `logp_gap_max`, and some metrics of every update; empty if nothing was trained."""
    difficulty: tuple[int, ...]
    """Of each problem."""
    needed_loops: tuple[int, ...] | None = None
    """Of each answer with every token at the depth that it needs; None where the task does not say it."""
    about: Mapping[str, Any]
    """Versions, commit and machine."""
    rules: tuple[RuleFigures, ...]

    def figures(self, label: str) -> RuleFigures | None:
        """The figures under the rule with this label, if it was measured."""
        return next((figures for figures in self.rules if figures.rule == label), None)

    @property
    def served_figures(self) -> RuleFigures:
        figures = self.figures(self.served)
        assert figures is not None, "the served rule is always measured"
        return figures


def write_result(path: Path, result: StudyResult) -> None:
    """Write or replace the file; one line per field and per rule, so that changes are readable."""
    record = asdict(result)
    rules = ",\n".join(f"  {_line(rule)}" for rule in record.pop("rules"))
    lines = [f" {json.dumps(name)}: {_line(value)},\n" for name, value in record.items()]
    write_atomically(path, ["{\n", *lines, ' "rules": [\n', rules, "\n ]\n}\n"])


def read_result(path: Path) -> StudyResult | None:
    """The result in a file; None if there is none, or if it has another version of the format.

    Raises UserError for a file that is not what a study writes."""
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        if record["schema"] != SCHEMA:
            return None
        rules = tuple(_record_of(RuleFigures, rule) for rule in record.pop("rules"))
        return _record_of(StudyResult, record, rules=rules)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        problem = " ".join(str(error).split())[:120]
        raise UserError(f"{path}: not a result of a study ({problem}); restore it, or delete it") from None


def read_results(folder: Path) -> list[StudyResult]:
    """All results in a folder, by arm and seed; files of another version of the format are left out."""
    results = (read_result(file) for file in sorted(folder.glob("*.json")))
    return sorted((result for result in results if result is not None), key=lambda result: (result.arm, result.seed))


def label_of(correct: Sequence[bool | None]) -> str:
    """`RuleFigures.correct` from one verdict per problem."""
    return "".join(UNSCORED if verdict is None else RIGHT if verdict else WRONG for verdict in correct)


def _record_of(cls: type, record: Mapping[str, Any], **more: Any) -> Any:
    """A dataclass from JSON: lists become tuples."""
    values = {name: tuple(value) if isinstance(value, list) else value for name, value in record.items()} | more
    names = {one.name for one in fields(cls)}
    if surplus := values.keys() - names:
        raise ValueError(f"unknown entry {min(surplus)}")
    return cls(**values)


def _line(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
