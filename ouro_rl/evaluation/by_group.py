"""Accuracy and compute by what the problems say of themselves: difficulty, subject, level."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ouro_rl.core.summary_stats import loops_per_answer, mean_depth, rank_correlation, wilson_interval
from ouro_rl.evaluation.answers import GROUPS, Answer
from ouro_rl.evaluation.statistics import Estimate, clustered_mean

DIFFICULTY = "difficulty"


@dataclass(frozen=True, kw_only=True)
class DifficultyRow:
    """The answers to the problems of one difficulty."""

    difficulty: int
    accuracy: float | None
    """Fraction of the scored answers that are correct; None if none could be scored."""
    mean_depth: float
    """Loops per token, over all tokens of all answers."""
    mean_loops: float
    """Loops per answer: the mean of the sums of their depths."""
    n: int
    """Scored answers."""


@dataclass(frozen=True, kw_only=True)
class GroupRow:
    """The answers to the problems with one value of a column, such as one subject."""

    value: str
    accuracy: float | None
    ci_low: float | None
    ci_high: float | None
    """95% interval of the accuracy; all three None if no answer could be scored."""
    loops_per_answer: float
    loops_per_token: float
    n: int
    """Scored answers."""


def by_problem(answers: Sequence[Answer]) -> dict[int, list[Answer]]:
    groups: dict[int, list[Answer]] = defaultdict(list)
    for answer in answers:
        groups[answer.problem].append(answer)
    return groups


def accuracy_of(scored: Sequence[Answer], samples: int) -> Estimate:
    """The accuracy of at least one scored answer, with its interval: see `EvalRow.ci_low`."""
    if samples == 1:
        correct = sum(answer.correct for answer in scored)
        low, high = wilson_interval(correct, len(scored))
        return Estimate(value=correct / len(scored), low=low, high=high)
    groups = by_problem(scored).values()
    rights = [float(sum(answer.correct for answer in group)) for group in groups]
    return clustered_mean(rights, [float(len(group)) for group in groups])


def by_group(answers: Sequence[Answer], columns: Sequence[str] = GROUPS) -> dict[str, tuple[GroupRow, ...]]:
    """Rows by the values of each column that all problems have; difficulty has a table of its own."""
    samples = max((answer.sample for answer in answers), default=0) + 1
    found = {}
    for column in columns:
        if column != DIFFICULTY and (parts := _parts(answers, column)):
            rows = [_group_row(str(value), parts[value], samples) for value in sorted(parts, key=_in_order)]
            found[column] = tuple(rows)
    return found


def _parts(answers: Sequence[Answer], column: str) -> dict[Any, list[Answer]]:
    """The answers by the value of a column; empty unless all problems have one."""
    parts: dict[Any, list[Answer]] = defaultdict(list)
    for answer in answers:
        if column not in answer.groups:
            return {}
        parts[answer.groups[column]].append(answer)
    return parts


def _in_order(value: Any) -> tuple[bool, float, str]:
    """Numbers by size, before everything else by name."""
    is_number = isinstance(value, int | float)
    return not is_number, value if is_number else 0.0, str(value)


def _group_row(value: str, answers: Sequence[Answer], samples: int) -> GroupRow:
    scored = [answer for answer in answers if answer.value is not None]
    accuracy = accuracy_of(scored, samples) if scored else None
    return GroupRow(
        value=value,
        accuracy=None if accuracy is None else accuracy.value,
        ci_low=None if accuracy is None else accuracy.low,
        ci_high=None if accuracy is None else accuracy.high,
        loops_per_answer=loops_per_answer(answer.depths for answer in answers),
        loops_per_token=mean_depth(answer.depths for answer in answers),
        n=len(scored),
    )


def by_difficulty(answers: Sequence[Answer]) -> tuple[DifficultyRow, ...]:
    """One row per difficulty, in ascending order; none if the problems do not say how difficult they are."""
    rows = []
    for difficulty, part in sorted(_parts(answers, DIFFICULTY).items(), key=lambda item: _in_order(item[0])):
        scored = [answer for answer in part if answer.value is not None]
        rows.append(
            DifficultyRow(
                difficulty=difficulty,
                accuracy=sum(answer.correct for answer in scored) / len(scored) if scored else None,
                mean_depth=mean_depth(answer.depths for answer in part),
                mean_loops=loops_per_answer(answer.depths for answer in part),
                n=len(scored),
            )
        )
    return tuple(rows)


def depth_correlation(answers: Sequence[Answer]) -> float | None:
    """Spearman's rank correlation between the difficulty of problems and the loops per token of their answers; None if
    one of them does not vary, or if the problems do not say how difficult they are."""
    levels = [answer.groups.get(DIFFICULTY) for answer in answers]
    known = [(level, answer) for level, answer in zip(levels, answers, strict=True) if isinstance(level, int | float)]
    if len(known) < len(answers):
        return None
    return rank_correlation([level for level, _ in known], [mean_depth([answer.depths]) for _, answer in known])


def difficulty_table(rows: Sequence[tuple[str, Sequence[DifficultyRow]]]) -> str:
    """Named rows by difficulty as plain text: accuracy, and in parentheses loops per answer."""
    width = max(len("by difficulty"), *(len(name) for name, _ in rows))
    head = [f"{row.difficulty:>14}" for row in rows[0][1]]
    lines = [f"{'by difficulty':<{width}}{''.join(head)}   (accuracy, loops per answer)"]
    for name, found in rows:
        shares = ["-" if row.accuracy is None else f"{row.accuracy:.1%}" for row in found]
        cells = [f"{share} ({row.mean_loops:.2f})" for share, row in zip(shares, found, strict=True)]
        lines.append(f"{name:<{width}}" + "".join(f"{cell:>14}" for cell in cells))
    return "\n".join(lines)
