"""The math grader in one process: like `MathReward`, but without worker pool, deadline and cache."""

from __future__ import annotations

from typing import Any

from rewards.math_grader.grading import AnswerPair, grade_parsed, grade_strings
from rewards.math_grader.policy import DEFAULT_POLICY, MathPolicy
from rewards.verdict import Verdict


def grade_answer(completion: str, gold: str, *, policy: MathPolicy = DEFAULT_POLICY, **options: Any) -> Verdict:
    """Grade one completion against a gold answer. options: `accept`, `thinking` and `question` of `grade_strings`."""
    verdict = grade_strings(completion, gold, policy=policy, **options)
    return grade_parsed(verdict, policy) if isinstance(verdict, AnswerPair) else verdict
