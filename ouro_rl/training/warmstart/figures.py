"""Final evaluation of a new checkpoint after its warm start, one function per task."""

from __future__ import annotations

import contextlib
import json
import random
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Any

from ouro_rl.config.warmstart import WarmstartConfig
from ouro_rl.core.rollout import RolloutRequest
from ouro_rl.core.sampling_params import ExitRule, SamplingParams
from ouro_rl.data.prompts import ChatFormat, load_benchmark, render
from ouro_rl.evaluation.evaluate import evaluate
from ouro_rl.evaluation.tables import table
from ouro_rl.model.modeling_ouro import OuroForCausalLM
from ouro_rl.model.token_bytes import stop_strings_of
from ouro_rl.model.tokenizer import completion_texts, stop_token_ids
from ouro_rl.tasks.function_writing import CARELESS, held_out_tasks
from ouro_rl.tasks.hops import ANSWER_END
from ouro_rl.tasks.walks import STEPS, TOKENS_PER_STEP
from rewards.code_grader.reward import CodeReward
from rollout_workers.pool import make_pool

MEDIAN_EXIT = ExitRule(kind="threshold", value=0.5)
SAMPLED_EXIT = ExitRule(kind="sample")
LONGEST_SOLUTION = 64
"""Maximum tokens of an answer to an arithmetic problem; the longest demonstration of four operations has 40."""
LONGEST_PROGRAM = 48
"""Maximum tokens of an answer to a function-writing task; the longest program has 32."""
LONGEST_HOPS_ANSWER = 8
"""Maximum tokens of an answer to a hops problem, which has one or, with the end of turn, two."""
LONGEST_WALK = TOKENS_PER_STEP * STEPS + 4
"""Maximum tokens of a walk; a right one has four less."""


@dataclass(frozen=True, kw_only=True)
class Figures:
    text: str
    """For the terminal."""
    record: dict[str, Any]
    """For the JSON file next to the weights."""


Measure = Callable[[OuroForCausalLM, Any, WarmstartConfig], Figures]
"""(model, tokenizer, config) -> figures."""


def arithmetic_figures(model: OuroForCausalLM, tokenizer: Any, config: WarmstartConfig) -> Figures:
    """Held-out accuracy and depth: greedy at every number of loops, over all problems and by number of operations;
    greedy at the gate's median exit; and sampled at temperature 1 with sampled exits."""
    operations = config.corpus.operations
    fixed = _fixed_exits(config)
    asked = [(rule, 0.0, operations) for rule in (*fixed, MEDIAN_EXIT)]
    asked += [(SAMPLED_EXIT, 1.0, operations)]
    asked += [(rule, 0.0, (count,)) for count in operations for rule in fixed]
    rows = []
    with make_pool(0, model.config.to_dict()) as pool:
        pool.publish(model.state_dict(), 0)
        for rule, temperature, counts in asked:
            prompts = load_benchmark("arithmetic", tokenizer=tokenizer, limit=config.eval_problems, difficulties=counts)
            params = _params(tokenizer, LONGEST_SOLUTION, rule, temperature)
            only = "" if counts == operations else f", {counts[0]} operations"
            rows.append(evaluate(pool, prompts, params, tokenizer=tokenizer, name=rule.label() + only))
    return Figures(text=table(rows), record={"figures": [asdict(row) for row in rows]})


def hops_figures(model: OuroForCausalLM, tokenizer: Any, config: WarmstartConfig) -> Figures:
    """Figures by number of hops; an answer is one token."""
    return _staircase("hops", LONGEST_HOPS_ANSWER, model, tokenizer, config)


def walks_figures(model: OuroForCausalLM, tokenizer: Any, config: WarmstartConfig) -> Figures:
    """Figures by the most hops in a step."""
    return _staircase("walks", LONGEST_WALK, model, tokenizer, config)


def _staircase(task: str, longest: int, model: OuroForCausalLM, tokenizer: Any, config: WarmstartConfig) -> Figures:
    """Held-out accuracy and loops, overall and by difficulty: greedy at every number of loops and at the gate's median
    exit, and sampled at temperature 1 with sampled exits. Answers end with their box."""
    prompts = load_benchmark(task, tokenizer=tokenizer, limit=config.eval_problems, difficulties=config.corpus.hops)
    asked = [*((rule, 0.0) for rule in (*_fixed_exits(config), MEDIAN_EXIT)), (SAMPLED_EXIT, 1.0)]
    ends = stop_strings_of(tokenizer, (ANSWER_END,))
    rows = []
    with make_pool(0, model.config.to_dict()) as pool:
        pool.publish(model.state_dict(), 0)
        for rule, temperature in asked:
            params = replace(_params(tokenizer, longest, rule, temperature), stop_strings=ends)
            rows.append(evaluate(pool, prompts, params, tokenizer=tokenizer))
    return Figures(text=table(rows), record={"figures": [asdict(row) for row in rows]})


def function_writing_figures(model: OuroForCausalLM, tokenizer: Any, config: WarmstartConfig) -> Figures:
    """Fraction of held-out tasks solved, and mean depth per token: sampled at temperature 1 with sampled exits, and
    greedy at the gate's median exit."""
    rng = random.Random(0)
    rows = [task.row(rng) for task in held_out_tasks()[: config.eval_problems]]
    tests = [row["tests"] for row in rows]
    pairs = [(row["problem"], {"tests": row["tests"]}) for row in rows]
    prompts = render(pairs, tokenizer, ChatFormat(), "held-out tasks")
    requests = [RolloutRequest(prompt=prompt, seeds=(prompt.index,)) for prompt in prompts]
    figures = {}
    with make_pool(0, model.config.to_dict()) as pool, contextlib.closing(CodeReward(all_or_nothing=True)) as code:
        pool.publish(model.state_dict(), 0)
        for name, rule, temperature in (("sampled", SAMPLED_EXIT, 1.0), ("greedy", MEDIAN_EXIT, 0.0)):
            rollouts = pool.rollout(requests, _params(tokenizer, LONGEST_PROGRAM, rule, temperature))
            values = code(completion_texts(tokenizer, rollouts), tests=tests)
            depths = [depth for rollout in rollouts for depth in rollout.depths]
            figures[name] = round(sum(value or 0.0 for value in values) / len(values), 3)
            figures[f"{name} depth"] = round(sum(depths) / len(depths), 2)
    return Figures(text=json.dumps(figures), record={"careless": CARELESS, "held_out": figures})


def _fixed_exits(config: WarmstartConfig) -> list[ExitRule]:
    return [ExitRule(kind="fixed", value=depth) for depth in range(1, config.model.total_ut_steps + 1)]


def _params(tokenizer: Any, max_new_tokens: int, rule: ExitRule, temperature: float) -> SamplingParams:
    return SamplingParams(
        max_new_tokens=max_new_tokens,
        temperature=temperature,
        exit_rule=rule,
        stop_token_ids=stop_token_ids(tokenizer),
    )
