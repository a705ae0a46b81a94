"""Accuracy and compute by difficulty, for problems that say how difficult they are (the column `difficulty`)."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from ouro_rl.core.rollout import Prompt, Rollout
from ouro_rl.core.summary_stats import loops_per_answer, mean_depth, rank_correlation

COLUMN = "difficulty"


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


def by_difficulty(
    prompts: Sequence[Prompt], values: Sequence[float | None], rollouts: Sequence[Rollout]
) -> tuple[DifficultyRow, ...]:
    """One row per difficulty, in ascending order; none if the problems do not say how difficult they are.

    `values` and `rollouts` are those of `graded_answers`: every answer's grade (None: could not be scored) and its
    rollout, in the order of the prompts, with the same number of samples for each."""
    groups: dict[int, list[tuple[float | None, Rollout]]] = defaultdict(list)
    if difficulties := _difficulties(prompts, rollouts):
        for difficulty, value, rollout in zip(difficulties, values, rollouts, strict=True):
            groups[difficulty].append((value, rollout))
    return tuple(_row(difficulty, groups[difficulty]) for difficulty in sorted(groups))


def depth_correlation(prompts: Sequence[Prompt], rollouts: Sequence[Rollout]) -> float | None:
    """Spearman's rank correlation between the difficulty of problems and the loops per token of their answers; None if
    one of them does not vary, or if the problems do not say how difficult they are."""
    difficulties = _difficulties(prompts, rollouts)
    depths = [mean_depth([rollout.depths]) for rollout in rollouts] if difficulties else []
    return rank_correlation(difficulties, depths)


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


def _difficulties(prompts: Sequence[Prompt], rollouts: Sequence[Rollout]) -> list[int]:
    """The difficulty of the problem of every rollout; empty if the problems do not say."""
    if any(COLUMN not in prompt.columns for prompt in prompts):
        return []
    samples = len(rollouts) // len(prompts)
    return [prompt.columns[COLUMN] for prompt in prompts for _ in range(samples)]


def _row(difficulty: int, answers: Sequence[tuple[float | None, Rollout]]) -> DifficultyRow:
    scored = [value for value, _ in answers if value is not None]
    depths = [rollout.depths for _, rollout in answers]
    return DifficultyRow(
        difficulty=difficulty,
        accuracy=sum(value == 1.0 for value in scored) / len(scored) if scored else None,
        mean_depth=mean_depth(depths),
        mean_loops=loops_per_answer(depths),
        n=len(scored),
    )
