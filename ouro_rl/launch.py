"""A training job from top to bottom.

config -> model, prompts | rollout workers | scorer -> rollout source
evaluation -> trainer: [publish weights -> sample, score -> credit -> replay -> losses -> update] x steps
evaluation -> report
"""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict
from datetime import timedelta
from typing import Any

import torch
from accelerate import PartialState
from accelerate.utils import broadcast_object_list
from transformers import PreTrainedTokenizerBase, TrainerCallback
from transformers.utils import logging as transformers_logging

from ouro_rl.config.train import TrainConfig
from ouro_rl.core.errors import UserError
from ouro_rl.core.exit_on_signal import ExitOnSignal
from ouro_rl.core.progress import say
from ouro_rl.core.rollout import Prompt
from ouro_rl.core.sampling_params import SamplingParams
from ouro_rl.core.watchdog import Watchdog
from ouro_rl.data.fingerprint import prompts_record
from ouro_rl.data.fitting import keep_fitting
from ouro_rl.data.gold_answers import keep_gradable
from ouro_rl.data.prompts import load_prompts
from ouro_rl.data.sampling import sampling_params
from ouro_rl.evaluation.answers import answer_scorer
from ouro_rl.evaluation.evaluate import evaluate
from ouro_rl.evaluation.held_out import greedy_params, held_out_prompts, reward_options
from ouro_rl.evaluation.rows import EvalRow
from ouro_rl.model.checkpoint import load_policy
from ouro_rl.model.configuration_ouro import OuroConfig
from ouro_rl.model.modeling_ouro import OuroForCausalLM
from ouro_rl.run_dir.disk import warn_if_disk_is_short
from ouro_rl.run_dir.loggers import Loggers
from ouro_rl.run_dir.report.page import write_report
from ouro_rl.run_dir.run_dir import BEST_FOLDER, RunDir, last_step_and_gap, step_of
from ouro_rl.run_dir.run_folder import run_folder
from ouro_rl.training.callbacks import Beats, LogToTrackers, Progress, StopOnSignal
from ouro_rl.training.periodic_evaluation import (
    PeriodicEvaluation,
    best_figures,
    drop_foreign_best,
    history_of,
    is_stalled,
)
from ouro_rl.training.processes import training_processes
from ouro_rl.training.rollout_source import GroupSampler
from ouro_rl.training.trainer import OuroGRPOTrainer
from rewards.scorer import Scorer
from rewards.spec import RewardSpec
from rollout_workers.engine.limits import PromptLimit, prompt_limit
from rollout_workers.fleet.settings import FleetSettings
from rollout_workers.pool import RolloutPool, describe_start, make_pool

LONGEST_WAIT = timedelta(days=1)
"""Timeout of distributed operations: the other ranks wait while rank 0 samples and evaluates."""


def run_training(config: TrainConfig, resume: bool) -> int:
    """Run or resume the job. Returns 0, or 128 + the signal that stopped it (after saving a checkpoint).

    Under `accelerate launch` or torchrun every process trains; only rank 0 samples, scores, evaluates and writes."""
    started = time.monotonic()
    transformers_logging.disable_progress_bar()
    processes = training_processes(timeout=LONGEST_WAIT)
    # Outside of updates there is nothing to save: a signal stops at once, with the workers.
    with ExitOnSignal() as outside, Watchdog(config.run.stall_s), ExitStack() as cleanup:
        model, tokenizer, prompts = load_model_and_prompts(config)
        began, config = config, with_steps(config, len(prompts))
        pool = cleanup.enter_context(start_pool(config, model.config)) if processes.is_main_process else None
        outside.install()  # Ray has set a handler of its own
        examine, sampler, during, opened = None, None, None, [None]
        summary: dict[str, Any] = {}
        if pool is not None:  # the main process
            scorer = cleanup.enter_context(make_scorer(config))
            sampler = GroupSampler(config, sampling_params(config.rollout, tokenizer), pool, scorer, tokenizer, prompts)
            examine = make_examiner(config, pool, tokenizer, model.config)
            # The folder comes last: a start that fails leaves none behind.
            run = run_folder(began, resume=resume, prompts=prompts_record(prompts), processes=processes.num_processes)
            opened = [cleanup.enter_context(run)]  # type: ignore[list-item]
            say(describe_start(config.rollout.workers))
            print(f"Rollouts by {pool.description()}")
        run_dir, checkpoint = broadcast_object_list(opened)[0]
        done = step_of(checkpoint) if checkpoint else 0
        if pool is not None:
            warn_if_disk_is_short(run_dir, config, model.num_parameters(), after_update=done)
            summary = summary_before(run_dir, pool, model, examine)
            drop_foreign_best(run_dir)
        if done >= config.trainer.updates or is_stalled(history_of(run_dir), config.eval.patience):
            # Only the evaluation is left; transformers would take one more step.
            model, _ = load_policy(str(checkpoint), torch.float32)
        else:
            with StopOnSignal() as stop:
                others = callbacks_of_main(config, run_dir, processes, cleanup)
                trainer = OuroGRPOTrainer(
                    model, tokenizer, config, prompts, publish=pool.publish if pool else None, run_dir=run_dir,
                    rollout_source=sampler, callbacks=[stop, Beats(), *others],
                )  # fmt: skip
                cleanup.callback(end_sampling, trainer, sampler)
                during = PeriodicEvaluation(trainer, examine, pool.publish if pool else None)
                if config.eval.every is not None:
                    trainer.add_callback(during)
                trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
            done = trainer.state.global_step
            if stop.received is not None and done < config.trainer.updates:
                if processes.is_main_process:
                    print_stopped(stop.received, run_dir)
                return 128 + stop.received
        if pool is not None and examine is not None:
            row = during.row_after(done) if during else None
            summary |= figures("after", row or published(pool, model, done, examine))
            summary |= best_figures(run_dir)
        processes.wait_for_everyone()
    if processes.is_main_process:
        summary |= closing_figures(run_dir, (time.monotonic() - started) / 60)
        run_dir.write_summary(summary)
        print_closing(summary, write_report(run_dir.path))
    return 0


def load_model_and_prompts(config: TrainConfig) -> tuple[OuroForCausalLM, PreTrainedTokenizerBase, list[Prompt]]:
    """The policy in fp32, its tokenizer, and the training prompts. Raises UserError if there are too few prompts for
    a step."""
    say(f"Loading the model {config.model.path}")
    model, tokenizer = load_policy(config.model.path, torch.float32, config.model.revision)
    config.check_loops(model.config.total_ut_steps)
    say(f"Reading the prompts from {config.data.source}")
    prompts = training_prompts(config, tokenizer, model.config)
    if len(prompts) < config.trainer.prompts_per_step:
        raise UserError(
            f"data.source {config.data.source}: {len(prompts)} usable prompts, but trainer.prompts_per_step is "
            f"{config.trainer.prompts_per_step};\n  give more data, or lower trainer.prompts_per_step"
        )
    return model, tokenizer, prompts


def with_steps(config: TrainConfig, prompts: int) -> TrainConfig:
    """The config with `trainer.steps`, also if it asks for epochs."""
    return config.model_copy(update={"trainer": config.trainer.with_steps(prompts)})


def summary_before(run_dir: RunDir, pool: RolloutPool, model, examine) -> dict[str, Any]:
    """The summary with the figures before training; a resumed run has them already."""
    summary = run_dir.read_summary() or {}
    if examine is not None and "accuracy_before" not in summary:
        pool.publish(model.state_dict(), 0)
        summary |= figures("before", examine("before"))
        run_dir.write_summary(summary)
    return summary


def end_sampling(trainer: OuroGRPOTrainer, sampler: GroupSampler | None) -> None:
    """Sample no further: nobody will use what is being sampled ahead."""
    if sampler is not None:
        sampler.cancel()
    trainer.close()


def callbacks_of_main(
    config: TrainConfig, run_dir: RunDir, processes: PartialState, cleanup: ExitStack
) -> list[TrainerCallback]:
    """What the main process shows and logs of the updates; nothing on the others."""
    if not processes.is_main_process:
        return []
    loggers = Loggers(config.log, run_dir, config.model_dump(mode="json"))
    progress = Progress()
    cleanup.callback(progress.close)
    return [progress, *([LogToTrackers(loggers)] if config.log else [])]


def print_stopped(number: int, run_dir: RunDir) -> None:
    """Print which signal stopped the run and how to resume it."""
    print(
        f"Stopped by {signal.Signals(number).name}; {run_dir.latest_checkpoint()} is complete. "
        f"Resume with --resume run.dir={run_dir.path}"
    )


def limit_of(config: TrainConfig, params: SamplingParams, model_config: OuroConfig) -> PromptLimit:
    """How long the prompts of this config may be, completed with `params`."""
    dtype = getattr(torch, config.model.dtype)
    return prompt_limit(model_config, params, config.rollout.engine(config.model.dtype), dtype)


def make_examiner(config: TrainConfig, pool, tokenizer, model_config: OuroConfig):
    """A function that evaluates the pool's policy on the held-out problems: always the same ones, greedily, with the
    same exit rule. None without eval.source."""
    if config.eval.source is None:
        return None
    prompts, params = held_out_prompts(config, tokenizer), greedy_params(config, tokenizer)
    prompts = keep_fitting(prompts, limit_of(config, params, model_config), f"eval.source {config.eval.source}")
    options, benchmark = reward_options(config), config.eval.source

    def examine(when: str) -> EvalRow:
        with answer_scorer(tokenizer, prompts, options) as scorer:
            return evaluate(
                pool, prompts, params, tokenizer=tokenizer, scorer=scorer, name=when, benchmark=benchmark,
                shape=model_config,
            )  # fmt: skip

    return examine


def published(pool: RolloutPool, model: OuroForCausalLM, done: int, examine: Callable[[str], EvalRow]) -> EvalRow:
    """The evaluation of a model after so many updates, after giving it to the workers."""
    pool.publish(model.state_dict(), done)
    return examine("after")


def figures(when: str, row: EvalRow) -> dict:
    """An evaluation under the keys of `summary.json`."""
    return {
        f"accuracy_{when}": row.accuracy,
        f"depth_{when}": row.mean_depth,
        f"length_{when}": row.mean_length,
        f"cut_off_{when}": row.cut_off,
        "n_heldout": row.n,
        f"eval_{when}": asdict(row),
    }


def closing_figures(run_dir: RunDir, minutes: float) -> dict:
    rows = run_dir.read_metrics()
    steps, gap = last_step_and_gap(rows)
    compared = sum("logp_gap/max" in row for row in rows)
    return {"steps": steps, "logp_gap_max": gap, "logp_gap_updates": compared, "minutes": minutes}


def print_closing(summary: dict, report) -> None:
    """Print the results before -> after, the log-prob gap, and the path of the report."""
    if "accuracy_after" in summary:
        print(
            f"\nHeld-out problems ({summary['n_heldout']}, greedy, at the gate's own exits)\n"
            f"  accuracy            {summary['accuracy_before']:6.1%} -> {summary['accuracy_after']:6.1%}\n"
            f"  depth per token     {summary['depth_before']:6.2f} -> {summary['depth_after']:6.2f}\n"
            f"  tokens per answer   {summary['length_before']:6.1f} -> {summary['length_after']:6.1f}"
        )
    if "cut_off_before" in summary:  # a run of an older version has none
        print(f"  cut off             {summary['cut_off_before']:6.1%} -> {summary['cut_off_after']:6.1%}")
    if summary.get("best_step") is not None:
        where = f"after update {summary['best_step']}, kept in {report.parent / BEST_FOLDER}"
        print(f"  best                {summary['best_accuracy']:6.1%} {where}")
    gap, compared = summary["logp_gap_max"], summary["logp_gap_updates"]
    where = (
        ""
        if compared == summary["steps"]
        else f", in {compared} of {summary['steps']} updates; the others had no token to compare"
    )
    known = "not known: no update had a token to compare" if gap is None else f"{gap:.1e} nats{where}"
    print(f"Largest log-prob gap between worker and trainer: {known}")
    print(f"{summary['steps']} updates in {summary['minutes']:.1f} minutes. Report: {report}")


def start_pool(config: TrainConfig, model_config: OuroConfig) -> RolloutPool:
    """The rollout workers of a config, for a model of this shape. Raises UserError if actors would sample on the CPU
    while the trainer uses a GPU, which would also make their log-probs disagree."""
    rollout = config.rollout
    if rollout.workers and not rollout.worker_gpus and torch.cuda.is_available():
        raise UserError(
            "rollout.worker_gpus is 0: the actors would sample on the CPU while the trainer is on a GPU;\n"
            "  set rollout.worker_gpus (a fraction of a GPU each), or CUDA_VISIBLE_DEVICES to the empty string"
        )
    settings = FleetSettings(
        cpus=rollout.worker_cpus, gpus=rollout.worker_gpus, threads=rollout.worker_threads, **config.ray.model_dump()
    )
    return make_pool(rollout.workers, model_config.to_dict(), rollout.engine(config.model.dtype), settings)


def make_scorer(config: TrainConfig) -> Scorer:
    specs = [RewardSpec(**reward.model_dump()) for reward in config.rewards.functions]
    return Scorer(specs, workers=config.rewards.workers, memory_mb=config.rewards.memory_mb)


def training_prompts(config: TrainConfig, tokenizer, model_config: OuroConfig) -> list[Prompt]:
    """The training prompts that fit; with a `math` reward, only those whose gold answer it can grade against."""
    where = f"data.source {config.data.source}"
    limit = limit_of(config, sampling_params(config.rollout, tokenizer), model_config)
    prompts = keep_fitting(load_prompts(config.data, tokenizer, seed=config.run.seed), limit, where)
    for reward in config.rewards.functions:
        if reward.name == "math":
            prompts = keep_gradable(prompts, where, workers=config.rewards.workers, kwargs=reward.kwargs)
    return prompts
