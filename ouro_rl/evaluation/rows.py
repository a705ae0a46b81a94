"""The figures of an evaluation: one row per exit rule and budget, computed from its answers."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

from ouro_rl.core.errors import RunError
from ouro_rl.core.summary_stats import loops_per_answer, mean_depth
from ouro_rl.evaluation.answers import Answer
from ouro_rl.evaluation.by_group import (
    DifficultyRow,
    GroupRow,
    accuracy_of,
    by_difficulty,
    by_group,
    by_problem,
    depth_correlation,
)
from ouro_rl.evaluation.statistics import Estimate, clustered_mean, majority_correct, pass_at_k


@dataclass(frozen=True, kw_only=True)
class EvalRow:
    """One row of an evaluation: one exit rule, or one budget of it."""

    name: str
    benchmark: str = ""
    accuracy: float
    """Fraction of the scored completions that are correct; with k samples per problem, avg@k."""
    ci_low: float
    ci_high: float
    """95% interval of the accuracy: Wilson's for one sample per problem, of a cluster bootstrap over problems for
    more, because samples of one problem are not independent."""
    mean_depth: float
    """Loops per completion token, over all tokens of all completions."""
    mean_length: float
    """Tokens per completion."""
    cut_off: float
    """Fraction of the completions that reached the maximum length without an end."""
    n: int
    """Scored completions."""
    correct: int
    unscored: int
    """Completions that could not be scored; they count only for depth, length and compute."""
    problems: int = 0
    samples: int = 1
    """Samples per problem."""
    pass_at_k: dict[str, Estimate] = field(default_factory=dict)
    """By k, for powers of two and the number of samples: the chance that one of k samples is right, unbiased, over
    the problems with at least k scored samples. Empty with one sample."""
    majority: Estimate | None = None
    """maj@k with all samples: how often the most frequent answer is right. None with one sample, and for programs."""
    loops_per_answer: float = math.nan
    """Mean of the sums of depths."""
    flops_per_answer: float | None = None
    """Of the answer and its prompt, attention included. None: the model's shape is not known."""
    loops_per_correct: float | None = None
    tokens_per_correct: float | None = None
    flops_per_correct: float | None = None
    """All loops, tokens and FLOPs by the number of right answers; None without one."""
    by_difficulty: tuple[DifficultyRow, ...] = ()
    """The same by difficulty, if the problems say how difficult they are."""
    depth_correlation: float | None = None
    """Spearman's rank correlation of the difficulty of problems with the loops per token of their answers. None: one of
    them does not vary, or the difficulty is not known."""
    by_group: dict[str, tuple[GroupRow, ...]] = field(default_factory=dict)
    """By subject and level, if the problems have them."""

    @property
    def label(self) -> str:
        """Its name among the rows of several benchmarks."""
        return f"{self.benchmark}: {self.name}" if self.benchmark else self.name


def row_of(answers: Sequence[Answer]) -> EvalRow:
    """The figures of the answers of one row, with the same number of samples for every problem.

    Raises RunError if none of them could be scored."""
    scored = [answer for answer in answers if answer.value is not None]
    if not scored:
        first = answers[0]
        raise RunError(f"none of {len(answers)} answers could be scored; the first: {first.detail or first.status}")
    of_problem = by_problem(scored)
    samples = max(answer.sample for answer in answers) + 1
    accuracy = accuracy_of(scored, samples)
    correct = sum(answer.correct for answer in scored)
    flops = [answer.flops for answer in answers if answer.flops is not None]
    loops, tokens = sum(sum(a.depths) for a in answers), sum(len(a.completion_ids) for a in answers)
    return EvalRow(
        name=answers[0].row,
        benchmark=answers[0].benchmark,
        accuracy=accuracy.value,
        ci_low=accuracy.low,
        ci_high=accuracy.high,
        mean_depth=mean_depth(answer.depths for answer in answers),
        mean_length=tokens / len(answers),
        cut_off=sum(answer.finish_reason == "length" for answer in answers) / len(answers),
        n=len(scored),
        correct=correct,
        unscored=len(answers) - len(scored),
        problems=len(by_problem(answers)),
        samples=samples,
        pass_at_k=_pass_at(of_problem, samples),
        majority=_majority(of_problem) if samples > 1 and all(a.gold is not None for a in answers) else None,
        loops_per_answer=loops_per_answer(answer.depths for answer in answers),
        flops_per_answer=sum(flops) / len(answers) if len(flops) == len(answers) else None,
        loops_per_correct=loops / correct if correct else None,
        tokens_per_correct=tokens / correct if correct else None,
        flops_per_correct=sum(flops) / correct if correct and len(flops) == len(answers) else None,
        by_difficulty=by_difficulty(answers),
        depth_correlation=depth_correlation(answers),
        by_group=by_group(answers),
    )


def _pass_at(of_problem: Mapping[int, Sequence[Answer]], samples: int) -> dict[str, Estimate]:
    found = {}
    ks = sorted({2**power for power in range(samples.bit_length()) if 2**power <= samples} | {samples})
    for k in ks if samples > 1 else []:
        enough = [group for group in of_problem.values() if len(group) >= k]
        if enough:
            found[str(k)] = _mean_of(enough, partial(_pass_at_k, k))
    return found


def _majority(of_problem: Mapping[int, Sequence[Answer]]) -> Estimate:
    def share(group: Sequence[Answer]) -> float:
        votes = [(answer.extracted, answer.correct) for answer in group if answer.extracted is not None]
        return majority_correct(votes)

    return _mean_of(list(of_problem.values()), share)


def _mean_of(groups: Sequence[Sequence[Answer]], figure: Callable[[Sequence[Answer]], float]) -> Estimate:
    return clustered_mean([figure(group) for group in groups], [1.0] * len(groups))


def _pass_at_k(k: int, group: Sequence[Answer]) -> float:
    return pass_at_k(len(group), sum(answer.correct for answer in group), k)
