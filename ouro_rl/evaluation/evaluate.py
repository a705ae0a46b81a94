"""Accuracy, depth and length of a policy on a benchmark: in training, and in every command that asks a policy."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any

from tqdm import tqdm

from ouro_rl.core.rollout import Prompt, Rollout, RolloutRequest
from ouro_rl.core.sampling_params import SamplingParams
from ouro_rl.core.seeds import sample_seed
from ouro_rl.evaluation.answers import Answer, Setting, answer_scorer, grade
from ouro_rl.evaluation.rows import EvalRow, row_of
from ouro_rl.model.configuration_ouro import OuroConfig
from rewards.scorer import Scorer
from rollout_workers.pool import RolloutPool


def evaluate(
    pool: RolloutPool,
    prompts: Sequence[Prompt],
    params: SamplingParams,
    *,
    tokenizer: Any,
    scorer: Scorer | None = None,
    name: str | None = None,
    benchmark: str = "",
    samples: int = 1,
    seed: int = 0,
    shape: OuroConfig | None = None,
) -> EvalRow:
    """Sample `samples` completions of every prompt with `params` and grade them.

    `scorer` has one reward (default: `answer_scorer`). `name` is the name of the row (default: that of the exit rule),
    `shape` the model's, without which there are no FLOPs. Shows a progress bar on a terminal. Raises RunError if
    nothing could be scored.
    """
    setting = Setting(benchmark=benchmark, row=name or params.exit_rule.label(), params=params)
    answers, _ = _answers(
        pool, prompts, setting, tokenizer=tokenizer, scorer=scorer, samples=samples, seed=seed, shape=shape
    )
    return row_of(answers)


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
    setting = Setting(benchmark="", row=name, params=params)
    answers, rollouts = _answers(
        pool, prompts, setting, tokenizer=tokenizer, scorer=scorer, samples=samples, seed=seed, shape=None
    )
    row_of(answers)  # raises if nothing could be scored
    return [answer.value for answer in answers], rollouts


def requests_for(prompts: Sequence[Prompt], samples: int, seed: int) -> list[RolloutRequest]:
    """One request per problem. A sample's seed depends on the problem and the sample alone, so that every exit rule
    draws the same random numbers."""
    return [
        RolloutRequest(prompt=prompt, seeds=tuple(sample_seed(seed, 0, prompt.index, k) for k in range(samples)))
        for prompt in prompts
    ]


def _answers(
    pool: RolloutPool,
    prompts: Sequence[Prompt],
    setting: Setting,
    *,
    tokenizer: Any,
    scorer: Scorer | None,
    samples: int,
    seed: int,
    shape: OuroConfig | None,
) -> tuple[list[Answer], list[Rollout]]:
    requests = requests_for(prompts, samples, seed)
    with tqdm(total=len(prompts) * samples, desc=setting.row, unit="answer", disable=None) as bar:

        def show(tokens: int, finished: int) -> None:
            bar.set_postfix_str(f"{tokens:,} tokens", refresh=False)
            bar.update(finished - bar.n)

        rollouts = pool.rollout(requests, setting.params, on_progress=show)
        bar.update(len(rollouts) - bar.n)
    asked = [request.prompt for request in requests for _ in request.seeds]
    seeds = [each for request in requests for each in request.seeds]
    with ExitStack() as cleanup:
        scorer = scorer or cleanup.enter_context(answer_scorer(tokenizer, prompts))
        answers = grade(setting, asked, seeds, rollouts, tokenizer=tokenizer, scorer=scorer, shape=shape)
    return answers, rollouts
