"""`ouro-rl eval`: answers benchmarks with a checkpoint under exit rules and budgets, and writes what came of it."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from ouro_rl.core.benchmarks import HUB_BENCHMARKS
from ouro_rl.core.errors import UserError
from ouro_rl.core.progress import say
from ouro_rl.core.rollout import Prompt
from ouro_rl.core.sampling_params import ExitRule, SamplingParams
from ouro_rl.data.fingerprint import prompts_record
from ouro_rl.evaluation.answers import WHOLE, Answer, Budget, Setting, answer_scorer
from ouro_rl.evaluation.collect import Collector, Progress
from ouro_rl.evaluation.held_out import fitting_under, greedy_params, held_out_prompts, policy_for, reward_options
from ouro_rl.evaluation.memory import memory_line
from ouro_rl.evaluation.out_folder import EvalFolder
from ouro_rl.evaluation.page import write_page
from ouro_rl.evaluation.request import FORMAT, Ask, EvalRequest
from ouro_rl.evaluation.rows import EvalRow, row_of
from ouro_rl.evaluation.tables import compute_table, cut_off_note, table
from ouro_rl.model.checkpoint import load_policy
from ouro_rl.model.policy.exit_gate import check_depth_policy
from ouro_rl.run_dir.run_lock import RunLock
from ouro_rl.run_dir.versions import versions_of
from rollout_workers.fleet.settings import FleetSettings
from rollout_workers.pool import RolloutPool, describe_start, make_pool

STOP_OPTIONS = ("--stop-id", "--stop")


@dataclass(frozen=True, kw_only=True)
class Plan:
    """One benchmark, ready to be asked."""

    ask: Ask
    prompts: list[Prompt]
    params: SamplingParams
    """But for the exit rule."""
    rules: tuple[SamplingParams, ...]
    """One per exit rule, in the order of the table."""

    def budgets(self, request: EvalRequest) -> tuple[Budget, ...]:
        tokens = tuple(Budget(tokens=limit) for limit in request.token_budgets)
        return (*(tokens or (WHOLE,)), *(Budget(loops=limit) for limit in request.loop_budgets))

    def settings(self, request: EvalRequest) -> list[list[Setting]]:
        """By exit rule, one setting for each budget; they share the samples."""
        return [
            [
                Setting(
                    benchmark=self.ask.benchmark,
                    row=", ".join(filter(None, (params.exit_rule.label(), budget.label()))),
                    params=params,
                    budget=budget,
                )
                for budget in self.budgets(request)
            ]
            for params in self.rules
        ]


@dataclass(frozen=True, kw_only=True)
class Measured:
    """One row and what it is computed from."""

    row: EvalRow
    answers: list[Answer]
    seconds: float | None
    """Time of sampling and grading. None: of a budget whose answers are the beginning of another row's."""


def run_eval(request: EvalRequest) -> Path:
    """Measure every exit rule of `request` on every benchmark, print tables, write the results into its folder and
    return the path of `eval.json`. What an interrupted evaluation has answered is not answered again.

    Raises UserError if the checkpoint, a benchmark or a depth cannot be used, or if the folder holds something else.
    """
    folder, cuda = EvalFolder(request.out), torch.cuda.is_available()
    folder.check(request.record())
    first = request.asks[0]
    dtype = request.dtype or (first.config.model.dtype if first.run is not None else "bfloat16" if cuda else "float32")
    for ask in request.asks:
        print(describe_format(ask))
    say(f"Loading the model {request.model}")
    model, tokenizer = load_policy(request.model, getattr(torch, dtype), request.revision)
    shape = model.config
    engine = first.config.rollout.engine(dtype)
    plans = [_plan(request, ask, tokenizer, shape, dtype) for ask in request.asks]
    folder.path.mkdir(parents=True, exist_ok=True)
    with ExitStack() as cleanup:
        lock = RunLock(folder.path)
        lock.acquire()
        cleanup.callback(lock.release)
        gpus = 1 if cuda and request.workers else 0
        settings = FleetSettings(gpus=gpus, **first.config.ray.model_dump())
        pool = cleanup.enter_context(make_pool(request.workers, shape.to_dict(), engine, settings))
        say(describe_start(request.workers))
        pool.publish(model.state_dict(), 0)
        sizes = [(weight.numel(), weight.nbytes) for weight in model.parameters()]
        del model  # the pool has its own copy
        record = _record(request, plans, dtype, pool)
        folder.begin(request.record() | {"loaded": record["loaded"]})
        measured = [found for part in _measure(request, folder, plans, pool, tokenizer, shape) for found in part]
        memory = memory_line(pool, sum(count for count, _ in sizes), sum(size for _, size in sizes))
    for plan in plans:
        _print(request, plan, [found for found in measured if found.row.benchmark == plan.ask.benchmark])
    print(memory)
    result = record | {"rows": [asdict(found.row) for found in measured], "timing": [_timing(m) for m in measured]}
    path = folder.finish(result, (answer.to_dict() for found in measured for answer in found.answers))
    write_page(folder, result)
    return path


def _plan(request: EvalRequest, ask: Ask, tokenizer: Any, shape: Any, dtype: str) -> Plan:
    params = _sampling_params(request, ask, tokenizer)
    rules = tuple(_under(request, rule, params) for rule in request.rules(ask))
    for one in rules:
        check_depth_policy(one.depth_policy, one.exit_rule, shape.total_ut_steps)
    say(f"Reading the problems of {ask.benchmark}")
    prompts = held_out_prompts(ask.config, tokenizer, data_file=ask.data_file, key="--benchmark")
    prompts = fitting_under(prompts, rules, shape, ask.config.rollout.engine(dtype), f"--benchmark {ask.benchmark}")
    return Plan(ask=ask, prompts=prompts, params=params, rules=rules)


def _under(request: EvalRequest, rule: ExitRule, params: SamplingParams) -> SamplingParams:
    """The parameters for one rule; a fixed depth that was asked for bounds all loops (`policy_for`)."""
    policy = policy_for(rule, params.depth_policy) if request.depths else params.depth_policy
    return replace(params, exit_rule=rule, depth_policy=policy)


def _measure(
    request: EvalRequest, folder: EvalFolder, plans: Sequence[Plan], pool: RolloutPool, tokenizer: Any, shape: Any
) -> list[list[Measured]]:
    """The rows of every benchmark, in the order of the tables."""
    known = folder.answers_so_far()
    total = sum(len(plan.prompts) * len(plan.rules) for plan in plans) * request.samples
    found = []
    with folder.open_partial() as file, Progress(total) as progress:
        for plan in plans:
            options = reward_options(plan.ask.config)
            with answer_scorer(tokenizer, plan.prompts, options) as scorer:
                collector = Collector(
                    pool=pool, tokenizer=tokenizer, scorer=scorer, shape=shape, file=file, progress=progress,
                    samples=request.samples, seed=request.seed,
                )  # fmt: skip
                rows = []
                for settings in plan.settings(request):
                    answers, seconds = collector.collect(plan.prompts, settings, known)
                    for index, part in enumerate(answers):
                        is_whole = index == max(len(request.token_budgets) - 1, 0)
                        rows.append(Measured(row=row_of(part), answers=part, seconds=seconds if is_whole else None))
                    progress.row_done(rows[-1].row)
                found.append(rows)
    return found


def _print(request: EvalRequest, plan: Plan, measured: Sequence[Measured]) -> None:
    rows = [found.row for found in measured]
    if len(request.asks) > 1:
        print(f"\n{plan.ask.benchmark}")
    print(table(rows))
    print("\n" + compute_table(rows, [found.seconds for found in measured]))
    origin = "" if request.own_length else ", the run's" if plan.ask.run else ", the default"
    if note := cut_off_note(rows, plan.params.max_new_tokens, f"--max-new-tokens{origin}"):
        print(note)


def describe_format(ask: Ask) -> str:
    """How the problems are asked, in one line, and where that comes from."""
    texts = {name.replace("_", " "): getattr(ask.config.data, name) for name in FORMAT}
    how = ", ".join(f"{name} {value!r}" for name, value in texts.items() if value) or "the bare problem"
    origin = ask.run or "the default of this benchmark; --config takes that of a run"
    return f"Prompt format: {how} (from {origin})"


def _sampling_params(request: EvalRequest, ask: Ask, tokenizer: Any) -> SamplingParams:
    greedy = greedy_params(ask.config, tokenizer, STOP_OPTIONS)
    default = 0.0 if request.samples == 1 else 1.0
    temperature = default if request.temperature is None else request.temperature
    if temperature == 0.0:
        return greedy
    return replace(greedy, temperature=temperature, filters=ask.config.rollout.filters())


def _timing(measured: Measured) -> dict[str, Any]:
    row, seconds = measured.row, measured.seconds
    return {
        "benchmark": row.benchmark,
        "name": row.name,
        "seconds": seconds,
        "seconds_per_answer": None if seconds is None else seconds / len(measured.answers),
        "seconds_per_correct": None if seconds is None or not row.correct else seconds / row.correct,
    }


def _record(request: EvalRequest, plans: Sequence[Plan], dtype: str, pool: RolloutPool) -> dict[str, Any]:
    """All of `eval.json` but the figures. What benchmarks have of their own stands under `benchmarks`; the first one's
    also at the top, where an evaluation of one benchmark has it."""
    benchmarks = [_of_benchmark(plan) for plan in plans]
    loaded = {
        "weights": sorted({weights for _, weights in pool.fingerprints()}),
        "dtype": dtype,
        "problems": [prompts_record(plan.prompts) for plan in plans],
        "data_revisions": [one["data_revision"] for one in benchmarks],
    }
    if len(loaded["weights"]) > 1:
        raise UserError(f"--workers {request.workers}: the workers hold different weights; start again")
    return {
        "model": request.model,
        "revision": request.revision,
        **benchmarks[0],
        "benchmarks": benchmarks,
        "samples": request.samples,
        "temperature": plans[0].params.temperature,
        "seed": request.seed,
        "dtype": dtype,
        "loaded": loaded,
        "versions": versions_of(("torch", "transformers", "python-flint")),
    }


def _of_benchmark(plan: Plan) -> dict[str, Any]:
    config, params = plan.ask.config, plan.params
    known = HUB_BENCHMARKS.get(plan.ask.benchmark)
    return {
        "benchmark": plan.ask.benchmark,
        "hub_id": None if known is None or plan.ask.data_file is not None else known.hub_id,
        "data_revision": config.eval.revision,
        "data_file": None if plan.ask.data_file is None else str(plan.ask.data_file),
        "problems": len(plan.prompts),
        **asdict(params.filters),
        "stop_strings": config.rollout.stop_strings,
        "stop_token_ids": params.stop_token_ids,
        "max_new_tokens": params.max_new_tokens,
        "thinking_budget": config.rollout.thinking_budget,
        "thinking_closing": config.rollout.thinking_closing,
        "format_from": plan.ask.run,
        **{name: getattr(config.data, name) for name in FORMAT},
        "question_column": config.eval.question_column,
        "answer_column": config.eval.answer_column,
        **asdict(params.depth_policy),
    }
