"""The same held-out problems, answered by one checkpoint under several exit rules."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from ouro_rl.config.train import TrainConfig
from ouro_rl.core.rollout import Prompt, Rollout
from ouro_rl.core.sampling_params import DepthPolicy, ExitRule
from ouro_rl.evaluation.answers import answer_scorer
from ouro_rl.evaluation.evaluate import graded_answers
from ouro_rl.evaluation.held_out import fitting_under, greedy_params, held_out_prompts, policy_for, reward_options
from ouro_rl.model.checkpoint import load_policy
from ouro_rl.model.configuration_ouro import OuroConfig
from ouro_rl.model.policy.exit_gate import check_depth_policy
from rollout_workers.pool import make_pool


@dataclass(frozen=True, kw_only=True)
class RuleAnswers:
    """One greedy answer to every problem, under one rule."""

    rule: ExitRule
    policy: DepthPolicy
    grades: list[float | None]
    """1.0: right; None: could not be scored."""
    rollouts: list[Rollout]

    @property
    def correct(self) -> list[bool | None]:
        return [None if grade is None else grade == 1.0 for grade in self.grades]


@dataclass(frozen=True, kw_only=True)
class Answers:
    prompts: list[Prompt]
    shape: OuroConfig
    tokenizer: Any
    rules: list[RuleAnswers]


def answers_under(
    config: TrainConfig, model_path: str, rules: Sequence[ExitRule], *, dtype: str = "float32", seed: int = 0
) -> Answers:
    """Answer the problems of `config.eval` with a checkpoint, greedily, in this process. `seed`: of rules that sample.

    Raises UserError if a rule does not fit the model, or if there are no problems."""
    model, tokenizer = load_policy(model_path, torch.float32)
    shape: OuroConfig = model.config
    params = greedy_params(config, tokenizer)
    asked = [replace(params, exit_rule=rule, depth_policy=policy_for(rule, params.depth_policy)) for rule in rules]
    for one in asked:
        check_depth_policy(one.depth_policy, one.exit_rule, shape.total_ut_steps)
    engine = config.rollout.engine(dtype)
    prompts = held_out_prompts(config, tokenizer)
    prompts = fitting_under(prompts, asked, shape, engine, f"eval.source {config.eval.source}")
    found = []
    options = reward_options(config)
    with make_pool(0, shape.to_dict(), engine) as pool, answer_scorer(tokenizer, prompts, options) as scorer:
        pool.publish(model.state_dict(), 0)
        for one in asked:
            grades, rollouts = graded_answers(
                pool, prompts, one, tokenizer=tokenizer, scorer=scorer, name=one.exit_rule.label(), seed=seed
            )
            answers = RuleAnswers(rule=one.exit_rule, policy=one.depth_policy, grades=grades, rollouts=rollouts)
            found.append(answers)
    return Answers(prompts=prompts, shape=shape, tokenizer=tokenizer, rules=found)
