"""Accuracy and loops by difficulty, subject and level, from answers that are known."""

from __future__ import annotations

from typing import Any

import pytest

from ouro_rl.core.summary_stats import wilson_interval
from ouro_rl.evaluation.by_group import DifficultyRow, by_difficulty, by_group, depth_correlation, difficulty_table
from tests.references.answers import make_answer


def answers(values: list[float | None], depths: list[tuple[int, ...]], groups: list[dict[str, Any]]):
    """Two samples of each problem."""
    return [
        make_answer(index // 2, index % 2, value=value, depths=loops, groups=groups[index // 2])
        for index, (value, loops) in enumerate(zip(values, depths, strict=True))
    ]


LEVELS: list[dict[str, Any]] = [{"difficulty": 3}, {"difficulty": 1}]
DEPTHS = [(4, 2), (3,), (1,), (2, 1)]


def test_rows_ascend_and_their_figures_follow_from_the_answers() -> None:
    assert by_difficulty(answers([1.0, 0.0, 1.0, None], DEPTHS, LEVELS)) == (
        DifficultyRow(difficulty=1, accuracy=1.0, mean_depth=4 / 3, mean_loops=2.0, n=1),
        DifficultyRow(difficulty=3, accuracy=0.5, mean_depth=3.0, mean_loops=4.5, n=2),
    )


def test_a_row_without_a_scored_answer_has_no_accuracy() -> None:
    first, second = by_difficulty(answers([0.0, 0.0, None, None], DEPTHS, LEVELS))
    assert first.accuracy is None and first.n == 0 and second.accuracy == 0.0


def test_problems_that_do_not_say_how_difficult_they_are() -> None:
    silent = answers([1.0] * 4, DEPTHS, [LEVELS[0], {}])
    assert by_difficulty(silent) == () and by_group(silent) == {}
    assert depth_correlation(silent) is None


def test_the_correlation_is_that_of_ranks_and_none_at_a_fixed_depth() -> None:
    def of(first: tuple[int, ...], second: tuple[int, ...]) -> float | None:
        return depth_correlation(answers([1.0] * 4, [first, first, second, second], LEVELS))

    assert of((4, 4), (1,)) == pytest.approx(1.0)
    assert of((1,), (4, 1)) == pytest.approx(-1.0)
    assert of((2,), (2, 2)) is None


def test_the_table_shows_accuracy_and_loops() -> None:
    rows = by_difficulty(answers([1.0, 0.0, None, None], DEPTHS, LEVELS))
    head, line = difficulty_table([("sample", rows)]).splitlines()
    assert head.split()[:4] == ["by", "difficulty", "1", "3"]
    assert line.split() == ["sample", "-", "(2.00)", "50.0%", "(4.50)"]


def test_subjects_by_name_and_levels_by_size() -> None:
    groups = [{"subject": "Geometry", "level": 10}, {"subject": "Algebra", "level": 9}]
    one = [make_answer(i, 0, value=float(i), depths=(2, 2), groups=groups[i]) for i in range(2)]
    found = by_group(one)
    assert [row.value for row in found["subject"]] == ["Algebra", "Geometry"]
    assert [row.value for row in found["level"]] == ["9", "10"]
    algebra = found["subject"][0]
    assert (algebra.accuracy, algebra.ci_low, algebra.ci_high) == (1.0, *wilson_interval(1, 1))
    assert (algebra.loops_per_answer, algebra.loops_per_token, algebra.n) == (4.0, 2.0, 1)
