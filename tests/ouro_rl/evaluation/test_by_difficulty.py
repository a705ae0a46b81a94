"""Accuracy and loops by difficulty, from answers that are known."""

from __future__ import annotations

import pytest

from ouro_rl.core.rollout import Prompt, Rollout
from ouro_rl.evaluation.by_difficulty import DifficultyRow, by_difficulty, depth_correlation, difficulty_table


def prompt(index: int, **columns: int) -> Prompt:
    return Prompt(index=index, token_ids=(1,), columns={"answer": "1", **columns})


def rollout(index: int, sample: int, *depths: int) -> Rollout:
    zeros = (0.0,) * len(depths)
    return Rollout(
        prompt_index=index, sample_index=sample, prompt_ids=(1,), completion_ids=(1,) * len(depths),
        token_logprobs=zeros, depths=depths, depth_logprobs=zeros, policy_version=0, temperature=1.0,
        finish_reason="stop",
    )  # fmt: skip


PROMPTS = [prompt(0, difficulty=3), prompt(1, difficulty=1)]
ROLLOUTS = [rollout(0, 0, 4, 2), rollout(0, 1, 3), rollout(1, 0, 1), rollout(1, 1, 2, 1)]


def test_rows_ascend_and_their_figures_follow_from_the_answers() -> None:
    assert by_difficulty(PROMPTS, [1.0, 0.0, 1.0, None], ROLLOUTS) == (
        DifficultyRow(difficulty=1, accuracy=1.0, mean_depth=4 / 3, mean_loops=2.0, n=1),
        DifficultyRow(difficulty=3, accuracy=0.5, mean_depth=3.0, mean_loops=4.5, n=2),
    )


def test_a_row_without_a_scored_answer_has_no_accuracy() -> None:
    first, second = by_difficulty(PROMPTS, [0.0, 0.0, None, None], ROLLOUTS)
    assert first.accuracy is None and first.n == 0 and second.accuracy == 0.0


def test_problems_that_do_not_say_how_difficult_they_are() -> None:
    silent = [PROMPTS[0], prompt(1)]
    assert by_difficulty(silent, [1.0] * 4, ROLLOUTS) == ()
    assert depth_correlation(silent, ROLLOUTS) is None


def test_the_correlation_is_that_of_ranks_and_none_at_a_fixed_depth() -> None:
    assert depth_correlation(PROMPTS, [rollout(0, 0, 4, 4), rollout(1, 0, 1)]) == pytest.approx(1.0)
    assert depth_correlation(PROMPTS, [rollout(0, 0, 1), rollout(1, 0, 4, 1)]) == pytest.approx(-1.0)
    assert depth_correlation(PROMPTS, [rollout(0, 0, 2), rollout(1, 0, 2, 2)]) is None


def test_the_table_shows_accuracy_and_loops() -> None:
    rows = by_difficulty(PROMPTS, [1.0, 0.0, None, None], ROLLOUTS)
    head, line = difficulty_table([("sample", rows)]).splitlines()
    assert head.split()[:4] == ["by", "difficulty", "1", "3"]
    assert line.split() == ["sample", "-", "(2.00)", "50.0%", "(4.50)"]
