"""`ouro-rl eval`: evaluates a checkpoint on a benchmark, prints a table and writes eval.json."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from ouro_rl.core.atomic_write import write_atomically
from ouro_rl.core.engine_config import EngineConfig
from ouro_rl.core.progress import say
from ouro_rl.core.rollout import Prompt
from ouro_rl.core.sampling_params import DepthPolicy, ExitRule, SamplingParams, TokenFilters
from ouro_rl.data.fitting import keep_fitting
from ouro_rl.data.gold_answers import keep_gradable
from ouro_rl.data.prompts import ChatFormat, load_benchmark
from ouro_rl.evaluation.evaluate import EvalRow, cut_off_note, evaluate, math_scorer, table
from ouro_rl.model.checkpoint import load_policy
from ouro_rl.model.policy.exit_gate import check_depth_policy
from ouro_rl.model.token_bytes import stop_strings_of
from ouro_rl.model.tokenizer import stop_token_ids
from ouro_rl.run_dir.versions import versions_of
from ouro_rl.tasks.catalog import GENERATED
from rollout_workers.engine.limits import prompt_limit
from rollout_workers.pool import describe_start, make_pool

SHORT_ANSWER, LONG_ANSWER = 64, 2048
"""Default maximum length of an answer in tokens, for generated tasks and for any other benchmark."""
MAX_BATCH = 256
"""Maximum number of sequences decoded at once on one engine."""
DEFAULT_RULES = (ExitRule(kind="threshold", value=0.5),)


@dataclass(frozen=True, kw_only=True)
class EvalRequest:
    """The arguments of `ouro-rl eval`."""

    model: str
    benchmark: str
    """`arithmetic`, `hops`, `math500` or a .jsonl file."""
    out: Path
    """Folder for `eval.json`."""
    data_file: Path | None = None
    """File with the benchmark's problems. None: they come from the hub."""
    depths: tuple[int, ...] = ()
    """Fixed numbers of loops, for both prompt and completion; may exceed the number the model was trained with."""
    thresholds: tuple[float, ...] = ()
    sample_gate: bool = False
    depth_policy: DepthPolicy = DepthPolicy()
    """Applies to thresholds and sampled depths."""
    samples: int = 1
    temperature: float | None = None
    """None: greedy with one sample, 1 with more."""
    filters: TokenFilters = TokenFilters()
    stop_strings: tuple[str, ...] = ()
    stop_token_ids: tuple[int, ...] = ()
    """In addition to the tokenizer's own."""
    limit: int | None = None
    max_new_tokens: int | None = None
    assistant_prefix: str = ""
    workers: int = 0
    seed: int = 0

    def rules(self) -> tuple[ExitRule, ...]:
        """The exit rules to measure, in the order of the table."""
        fixed = [ExitRule(kind="fixed", value=depth) for depth in self.depths]
        thresholds = [ExitRule(kind="threshold", value=value) for value in self.thresholds]
        sampled = [ExitRule(kind="sample")] if self.sample_gate else []
        return (*fixed, *thresholds, *sampled) or DEFAULT_RULES

    def policy(self, rule: ExitRule) -> DepthPolicy:
        """The depth policy for `rule`. With a fixed depth no loop beyond it runs, and no KV rule reads beyond it."""
        fixed = rule.kind == "fixed"
        return replace(self.depth_policy, min_depth=1, max_depth=int(rule.level)) if fixed else self.depth_policy


def run_eval(request: EvalRequest) -> Path:
    """Measure every exit rule of `request`, print a table, write `eval.json` and return its path.

    Raises UserError if the checkpoint, the benchmark or a depth cannot be used.
    """
    cuda = torch.cuda.is_available()
    dtype = "bfloat16" if cuda else "float32"
    say(f"Loading the model {request.model}")
    model, tokenizer = load_policy(request.model, getattr(torch, dtype))
    for rule in request.rules():
        check_depth_policy(request.policy(rule), rule, model.config.total_ut_steps)
    prompts = _load_problems(request, tokenizer)
    params = _sampling_params(request, tokenizer)
    engine = EngineConfig(dtype=dtype, max_batch=MAX_BATCH)
    limit = prompt_limit(model.config, params, engine, model.dtype)
    prompts = keep_fitting(prompts, limit, f"--benchmark {request.benchmark}")
    rows = []
    with ExitStack() as cleanup:
        gpus = 1 if cuda and request.workers else 0
        pool = cleanup.enter_context(make_pool(request.workers, request.model, engine, cpus=1, gpus=gpus))
        say(describe_start(request.workers))
        pool.publish(model.state_dict(), 0)
        del model  # the pool has its own copy
        scorer = cleanup.enter_context(math_scorer(tokenizer, prompts))
        for rule in request.rules():
            asked = replace(params, exit_rule=rule, depth_policy=request.policy(rule))
            rows.append(
                evaluate(
                    pool, prompts, asked, tokenizer=tokenizer, scorer=scorer, samples=request.samples, seed=request.seed
                )
            )
    print(table(rows))
    default = "" if request.max_new_tokens else ", the default"
    if note := cut_off_note(rows, params.max_new_tokens, f"--max-new-tokens{default}"):
        print(note)
    path = request.out / "eval.json"
    write_atomically(path, [json.dumps(_record(request, params, len(prompts), dtype, rows), indent=2), "\n"])
    return path


def _sampling_params(request: EvalRequest, tokenizer: Any) -> SamplingParams:
    default = 0.0 if request.samples == 1 else 1.0
    return SamplingParams(
        max_new_tokens=request.max_new_tokens or (SHORT_ANSWER if request.benchmark in GENERATED else LONG_ANSWER),
        temperature=default if request.temperature is None else request.temperature,
        filters=request.filters,
        stop_token_ids=stop_token_ids(tokenizer, request.stop_token_ids, "--stop-id"),
        stop_strings=stop_strings_of(tokenizer, request.stop_strings, key="--stop"),
    )


def _load_problems(request: EvalRequest, tokenizer: Any) -> list[Prompt]:
    chat = ChatFormat.for_benchmark(request.benchmark)
    prompts = load_benchmark(
        request.benchmark,
        tokenizer=tokenizer,
        data_file=request.data_file,
        limit=request.limit,
        chat=replace(chat, assistant_prefix=request.assistant_prefix),
    )
    return keep_gradable(prompts, f"--benchmark {request.benchmark}")


def _record(
    request: EvalRequest, params: SamplingParams, problems: int, dtype: str, rows: Sequence[EvalRow]
) -> dict[str, Any]:
    return {
        "model": request.model,
        "benchmark": request.benchmark,
        "data_file": None if request.data_file is None else str(request.data_file),
        "problems": problems,
        "samples": request.samples,
        "temperature": params.temperature,
        **asdict(params.filters),
        "stop_strings": request.stop_strings,
        "stop_token_ids": params.stop_token_ids,
        "max_new_tokens": params.max_new_tokens,
        "assistant_prefix": request.assistant_prefix,
        "dtype": dtype,
        **asdict(request.depth_policy),
        "seed": request.seed,
        "rows": [asdict(row) for row in rows],
        "versions": versions_of(("torch", "transformers", "math-verify")),
    }
