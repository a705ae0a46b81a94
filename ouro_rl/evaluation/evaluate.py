"""Accuracy, depth and length of a policy on a benchmark, under one exit rule or several."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

from tqdm import tqdm

from ouro_rl.core.errors import RunError
from ouro_rl.core.rollout import Prompt, Rollout, RolloutRequest
from ouro_rl.core.sampling_params import SamplingParams
from ouro_rl.core.seeds import sample_seed
from ouro_rl.core.summary_stats import mean_depth, wilson_interval
from ouro_rl.evaluation.by_difficulty import DifficultyRow, by_difficulty, depth_correlation, difficulty_table
from ouro_rl.model.tokenizer import completion_texts
from rewards.scorer import Scorer
from rewards.spec import RewardSpec
from rollout_workers.pool import RolloutPool


@dataclass(frozen=True, kw_only=True)
class EvalRow:
    """One row of an evaluation: one exit rule."""

    name: str
    accuracy: float
    """Fraction of the scored completions that are correct."""
    ci_low: float
    ci_high: float
    """95% Wilson interval of the accuracy, computed with the number of problems, because samples of one problem are not
    independent."""
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
    """Completions that could not be scored; they count only for depth and length."""
    by_difficulty: tuple[DifficultyRow, ...] = ()
    """The same by difficulty, if the problems say how difficult they are."""
    depth_correlation: float | None = None
    """Spearman's rank correlation of the difficulty of problems with the loops per token of their answers. None: one of
    them does not vary, or the difficulty is not known."""


def evaluate(
    pool: RolloutPool,
    prompts: Sequence[Prompt],
    params: SamplingParams,
    *,
    tokenizer: Any,
    scorer: Scorer | None = None,
    name: str | None = None,
    samples: int = 1,
    seed: int = 0,
) -> EvalRow:
    """Sample `samples` completions of every prompt with `params` and grade them with the `math` reward.

    `scorer` must have that reward (default: a new one). `name` is the name of the row (default: that of the exit rule).
    Shows a progress bar on a terminal. Raises RunError if nothing could be scored.
    """
    name = name or params.exit_rule.label()
    values, rollouts = graded_answers(
        pool, prompts, params, tokenizer=tokenizer, scorer=scorer, name=name, samples=samples, seed=seed
    )
    return _row(name, values, rollouts, prompts)


def graded_answers(
    pool: RolloutPool,
    prompts: Sequence[Prompt],
    params: SamplingParams,
    *,
    tokenizer: Any,
    scorer: Scorer | None = None,
    name: str = "",
    samples: int = 1,
    seed: int = 0,
) -> tuple[list[float | None], list[Rollout]]:
    """Every answer's grade (None: could not be scored) and its rollout, prompt by prompt; arguments and errors are
    those of `evaluate`."""
    requests = [
        RolloutRequest(prompt=prompt, seeds=tuple(sample_seed(seed, 0, prompt.index, k) for k in range(samples)))
        for prompt in prompts
    ]
    with tqdm(total=len(prompts) * samples, desc=name, unit="answer", disable=None) as bar:

        def show(tokens: int, finished: int) -> None:
            bar.set_postfix_str(f"{tokens:,} tokens", refresh=False)
            bar.update(finished - bar.n)

        rollouts = pool.rollout(requests, params, on_progress=show)
        bar.update(len(rollouts) - bar.n)
    asked = [prompt for prompt in prompts for _ in range(samples)]
    return _grade(asked, rollouts, tokenizer, scorer), rollouts


def math_scorer(tokenizer: Any, prompts: Sequence[Prompt]) -> Scorer:
    """A scorer with the `math` reward; if prompts end with `<think>`, only text after `</think>` is the answer."""
    thinking = bool(prompts) and tokenizer.decode(prompts[0].token_ids).rstrip().endswith("<think>")
    return Scorer([RewardSpec("math", kwargs={"thinking": thinking})], workers=2)


def table(rows: Sequence[EvalRow]) -> str:
    """The rows as plain text, one line each; below them the same by difficulty, if the problems say theirs."""
    width = max(len("exit rule"), *(len(row.name) for row in rows))
    lines = [f"{'exit rule':<{width}}  accuracy    95% interval   mean depth   mean length   cut off       n"]
    for row in rows:
        interval = f"{row.ci_low:.1%}-{row.ci_high:.1%}"
        note = f"  ({row.unscored} unscored)" if row.unscored else ""
        lines.append(
            f"{row.name:<{width}}  {row.accuracy:>8.1%}  {interval:>14}   {row.mean_depth:>10.2f}"
            f"   {row.mean_length:>11.1f}  {row.cut_off:>8.1%}  {row.n:>6}{note}"
        )
    if graded := [(row.name, row.by_difficulty) for row in rows if row.by_difficulty]:
        lines += ["", difficulty_table(graded)]
    return "\n".join(lines)


def cut_off_note(rows: Sequence[EvalRow], limit: int, key: str) -> str | None:
    """What to know where answers ended at the maximum length of `limit` tokens, which `key` sets; None if none did."""
    most = max(row.cut_off for row in rows)
    if most == 0:
        return None
    return (
        f"{most:.1%} of the answers were cut off at {limit:,} tokens ({key}) and can hardly be right; "
        "a longer limit may give another accuracy"
    )


def _grade(
    asked: Sequence[Prompt], rollouts: Sequence[Rollout], tokenizer: Any, scorer: Scorer | None
) -> list[float | None]:
    texts = completion_texts(tokenizer, rollouts)
    answers = {"answer": [prompt.columns["answer"] for prompt in asked]}
    with ExitStack() as cleanup:
        scorer = scorer or cleanup.enter_context(math_scorer(tokenizer, asked))
        scores = scorer.score([prompt.messages for prompt in asked], texts, answers)
    if all(score.rewards["math"] is None for score in scores):
        raise RunError(
            f"none of {len(scores)} answers could be scored; the first: {scores[0].details or scores[0].statuses}"
        )
    return [score.rewards["math"] for score in scores]


def _row(name: str, values: Sequence[float | None], rollouts: Sequence[Rollout], prompts: Sequence[Prompt]) -> EvalRow:
    scored = [value for value in values if value is not None]
    correct = sum(value == 1.0 for value in scored)
    accuracy = correct / len(scored)
    independent = min(len(prompts), len(scored))
    low, high = wilson_interval(accuracy * independent, independent)
    return EvalRow(
        name=name,
        accuracy=accuracy,
        ci_low=low,
        ci_high=high,
        mean_depth=mean_depth(rollout.depths for rollout in rollouts),
        mean_length=sum(len(rollout.completion_ids) for rollout in rollouts) / len(rollouts),
        cut_off=sum(rollout.finish_reason == "length" for rollout in rollouts) / len(rollouts),
        n=len(scored),
        correct=correct,
        unscored=len(values) - len(scored),
        by_difficulty=by_difficulty(prompts, values, rollouts),
        depth_correlation=depth_correlation(prompts, rollouts),
    )
