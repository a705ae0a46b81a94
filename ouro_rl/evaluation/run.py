"""`ouro-rl eval`: evaluates a checkpoint on a benchmark, prints a table and writes eval.json."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from ouro_rl.config.train import TrainConfig
from ouro_rl.core.atomic_write import write_atomically
from ouro_rl.core.progress import say
from ouro_rl.core.sampling_params import ExitRule, SamplingParams
from ouro_rl.evaluation.evaluate import EvalRow, cut_off_note, evaluate, math_scorer, table
from ouro_rl.evaluation.held_out import fitting_under, greedy_params, held_out_prompts, policy_for
from ouro_rl.model.checkpoint import load_policy
from ouro_rl.model.policy.exit_gate import check_depth_policy
from ouro_rl.run_dir.versions import versions_of
from rollout_workers.pool import describe_start, make_pool

STOP_OPTIONS = ("--stop-id", "--stop")


@dataclass(frozen=True, kw_only=True)
class EvalRequest:
    """What `ouro-rl eval` is to do."""

    model: str
    revision: str | None = None
    """Commit, tag or branch of a hub id."""
    config: TrainConfig
    """Problems, prompt format, sampling and engine: a run's, with the options of the command line."""
    run: str | None = None
    """Where the config comes from. None: from no run."""
    out: Path
    """Folder for `eval.json`."""
    data_file: Path | None = None
    """File with the benchmark's problems. None: they come from the hub."""
    depths: tuple[int, ...] = ()
    """Fixed numbers of loops, for both prompt and completion; may exceed the number the model was trained with."""
    thresholds: tuple[float, ...] = ()
    sample_gate: bool = False
    samples: int = 1
    temperature: float | None = None
    """None: greedy with one sample, 1 with more."""
    workers: int = 0
    seed: int = 0
    own_length: bool = False
    """Whether the maximum length was given with the request."""

    def rules(self) -> tuple[ExitRule, ...]:
        """The exit rules to measure, in the order of the table; the config's if none is asked for."""
        fixed = [ExitRule(kind="fixed", value=depth) for depth in self.depths]
        thresholds = [ExitRule(kind="threshold", value=value) for value in self.thresholds]
        sampled = [ExitRule(kind="sample")] if self.sample_gate else []
        return (*fixed, *thresholds, *sampled) or (self.config.eval.exit_rule.rule(),)

    def under(self, rule: ExitRule, params: SamplingParams) -> SamplingParams:
        """The parameters for one rule; a fixed depth that was asked for bounds all loops (`policy_for`)."""
        policy = policy_for(rule, params.depth_policy) if self.depths else params.depth_policy
        return replace(params, exit_rule=rule, depth_policy=policy)


def run_eval(request: EvalRequest) -> Path:
    """Measure every exit rule of `request`, print a table, write `eval.json` and return its path.

    Raises UserError if the checkpoint, the benchmark or a depth cannot be used.
    """
    config, cuda = request.config, torch.cuda.is_available()
    dtype = config.model.dtype if request.run is not None else "bfloat16" if cuda else "float32"
    print(describe_format(request))
    say(f"Loading the model {request.model}")
    model, tokenizer = load_policy(request.model, torch.float32, request.revision)
    params = _sampling_params(request, tokenizer)
    asked = [request.under(rule, params) for rule in request.rules()]
    for one in asked:
        check_depth_policy(one.depth_policy, one.exit_rule, model.config.total_ut_steps)
    prompts = held_out_prompts(config, tokenizer, data_file=request.data_file, key="--benchmark")
    engine = config.rollout.engine(dtype)
    prompts = fitting_under(prompts, asked, model.config, engine, f"--benchmark {config.eval.source}")
    rows = []
    with ExitStack() as cleanup:
        gpus = 1 if cuda and request.workers else 0
        pool = cleanup.enter_context(make_pool(request.workers, model.config.to_dict(), engine, cpus=1, gpus=gpus))
        say(describe_start(request.workers))
        pool.publish(model.state_dict(), 0)
        del model  # the pool has its own copy
        scorer = cleanup.enter_context(math_scorer(tokenizer, prompts))
        for one in asked:
            rows.append(
                evaluate(
                    pool, prompts, one, tokenizer=tokenizer, scorer=scorer, samples=request.samples, seed=request.seed
                )
            )
    print(table(rows))
    origin = "" if request.own_length else ", the run's" if request.run else ", the default"
    if note := cut_off_note(rows, params.max_new_tokens, f"--max-new-tokens{origin}"):
        print(note)
    path = request.out / "eval.json"
    write_atomically(path, [json.dumps(_record(request, params, len(prompts), dtype, rows), indent=2), "\n"])
    return path


def describe_format(request: EvalRequest) -> str:
    """How the problems are asked, in one line, and where that comes from."""
    texts = {name.replace("_", " "): value for name, value in _format(request.config).items() if value}
    how = ", ".join(f"{name} {value!r}" for name, value in texts.items()) or "the bare problem"
    origin = request.run or "the default of this benchmark; --config takes that of a run"
    return f"Prompt format: {how} (from {origin})"


def _format(config: TrainConfig) -> dict[str, str | None]:
    names = ("system_prompt", "prompt_suffix", "assistant_prefix")
    return {name: getattr(config.data, name) for name in names}


def _sampling_params(request: EvalRequest, tokenizer: Any) -> SamplingParams:
    greedy = greedy_params(request.config, tokenizer, STOP_OPTIONS)
    default = 0.0 if request.samples == 1 else 1.0
    temperature = default if request.temperature is None else request.temperature
    if temperature == 0.0:
        return greedy
    return replace(greedy, temperature=temperature, filters=request.config.rollout.filters())


def _record(
    request: EvalRequest, params: SamplingParams, problems: int, dtype: str, rows: Sequence[EvalRow]
) -> dict[str, Any]:
    config = request.config
    return {
        "model": request.model,
        "revision": request.revision,
        "benchmark": config.eval.source,
        "data_file": None if request.data_file is None else str(request.data_file),
        "problems": problems,
        "samples": request.samples,
        "temperature": params.temperature,
        **asdict(params.filters),
        "stop_strings": config.rollout.stop_strings,
        "stop_token_ids": params.stop_token_ids,
        "max_new_tokens": params.max_new_tokens,
        "thinking_budget": config.rollout.thinking_budget,
        "thinking_closing": config.rollout.thinking_closing,
        "format_from": request.run,
        **_format(config),
        "question_column": config.eval.question_column,
        "answer_column": config.eval.answer_column,
        "dtype": dtype,
        **asdict(params.depth_policy),
        "seed": request.seed,
        "rows": [asdict(row) for row in rows],
        "versions": versions_of(("torch", "transformers", "math-verify")),
    }
