"""A training job, top to bottom: config -> policy, prompts, workers, scorer -> evaluation, training, evaluation -> report."""

from __future__ import annotations

import dataclasses
import json
import os
import platform
import signal
import subprocess
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

import torch
import yaml
from tqdm import tqdm
from transformers import TrainerCallback, set_seed

import ouro_rl
from ouro_rl.checkpoints import load_policy
from ouro_rl.config import TrainConfig
from ouro_rl.data import load_benchmark, load_prompts, stop_token_ids
from ouro_rl.errors import RunError, UserError
from ouro_rl.evaluate import EvalRow, evaluate
from ouro_rl.report import write_report
from ouro_rl.rundir import RunDir, write_atomically
from ouro_rl.trainer import OuroGRPOTrainer, gap_limit
from ouro_rl.types import Prompt, RolloutRequest, SamplingParams, ScoredRollout
from rewards.registry import RewardSpec
from rewards.scorer import Scorer
from rollout_workers.pool import RolloutPool
from rollout_workers.seeds import sample_seed


def run_training(config: TrainConfig, resume: bool) -> int:
    """Run or resume the job. Returns 0, or 128 + the signal that asked it to stop (a checkpoint is left behind)."""
    started = time.monotonic()
    run_dir, checkpoint = open_run_dir(config, resume)
    with ExitStack() as cleanup:
        pool = cleanup.enter_context(make_pool(config))
        model, tokenizer = load_policy(config.model.path, torch.float32)
        set_seed(config.run.seed)
        prompts = load_prompts(config.data, tokenizer, seed=config.run.seed)
        if len(prompts) < config.trainer.prompts_per_step:
            raise UserError(
                f"data.source {config.data.source}: {len(prompts)} usable prompts, but trainer.prompts_per_step is "
                f"{config.trainer.prompts_per_step}.\nGive more data, or make a step smaller."
            )
        scorer = cleanup.enter_context(make_scorer(config))
        sampler = Sampler(config, pool, scorer, tokenizer)
        examiner = Examiner(config, pool, scorer, tokenizer)
        summary = (run_dir.read_summary() or {}) if resume else {}
        if config.eval.source and "accuracy_before" not in summary:
            pool.publish(model.state_dict(), 0)
            summary.update(examiner.figures("before"))
            run_dir.write_summary(summary)
        stop = cleanup.enter_context(StopOnSignal())
        trainer = OuroGRPOTrainer(
            model, tokenizer, config, prompts, rollout_source=sampler, publish=pool.publish, run_dir=run_dir,
            callbacks=[stop, Progress(config.trainer.steps)],
        )
        if checkpoint is not None:
            run_dir.truncate_after(int(checkpoint.name.removeprefix("step-")))
        trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint is not None else None)
        if stop.received is not None:
            saved = run_dir.latest_checkpoint()
            print(f"Stopped by {signal.Signals(stop.received).name}; {saved} is complete. Go on with --resume.")
            return 128 + stop.received
        summary |= closing_figures(run_dir, config)
        if config.eval.source:
            pool.publish(trainer.model.state_dict(), config.trainer.steps)
            summary.update(examiner.figures("after"))
        summary["eval"] = [summary.pop(key) for key in ("eval_before", "eval_after") if key in summary]
        summary["minutes"] = (time.monotonic() - started) / 60
        run_dir.write_summary(summary)
    print_closing(summary, write_report(run_dir.path))
    return 0


def open_run_dir(config: TrainConfig, resume: bool) -> tuple[RunDir, Path | None]:
    """The run's folder and the checkpoint to go on from. A folder that holds another run is never written into: without
    `resume` the next free name is taken."""
    path = config.run.dir
    if resume:
        run_dir = RunDir(path)
        checkpoint = run_dir.latest_checkpoint()
        if checkpoint is None and not run_dir.config_path.exists():
            raise UserError(f"--resume: {path} holds no run.\nStart without --resume, or set run.dir to the run's folder.")
        if run_dir.config_path.exists():
            refuse_other_config(run_dir, config)
        return run_dir, checkpoint
    number = 1
    while path.exists() and any(path.iterdir()):
        number += 1
        path = config.run.dir.with_name(f"{config.run.dir.name}-{number}")
    if path != config.run.dir:
        print(f"{config.run.dir} holds an earlier run; this one goes to {path}.")
    run_dir = RunDir(path)
    write_atomically(run_dir.config_path, [yaml.safe_dump(resolved(config), sort_keys=False)])
    return run_dir, None


def resolved(config: TrainConfig) -> dict:
    """What `config.yaml` holds: the whole configuration, then where it ran."""
    versions = {name: __import__(name).__version__ for name in ("torch", "transformers", "trl", "accelerate", "ray")}
    commit = subprocess.run(
        ["git", "-C", str(Path(__file__).parent), "rev-parse", "HEAD"], capture_output=True, text=True, check=False
    )
    about = {"ouro_rl": ouro_rl.__version__, "python": platform.python_version(), **versions}
    return {
        **config.model_dump(mode="json"),
        "about": {"versions": about, "commit": commit.stdout.strip() or None, "logp_gap_limit": gap_limit(config)},
    }


def refuse_other_config(run_dir: RunDir, config: TrainConfig) -> None:
    """A resumed run goes on with the configuration that it began with; only where and how long may differ."""
    recorded = yaml.safe_load(run_dir.config_path.read_text())
    now = config.model_dump(mode="json")
    for section, values in now.items():
        for key, value in values.items():
            if (section, key) in {("run", "dir"), ("trainer", "steps"), ("trainer", "checkpoint_every"), ("rollout", "workers")}:
                continue
            if recorded.get(section, {}).get(key) != value:
                raise UserError(
                    f"--resume: {section}.{key} is {value!r}, but the run in {run_dir.path} began with "
                    f"{recorded.get(section, {}).get(key)!r}.\nGive the same configuration, or start a new run."
                )


def make_pool(config: TrainConfig) -> RolloutPool:
    rollout = config.rollout
    return RolloutPool(
        rollout.workers, config.model.path, dtype=config.model.dtype, max_batch=rollout.max_batch,
        cpus=rollout.worker_cpus, gpus=rollout.worker_gpus,
    )


def make_scorer(config: TrainConfig) -> Scorer:
    specs = [
        RewardSpec(name=reward.name, weight=reward.weight, kwargs=reward.kwargs, timeout_s=reward.timeout_s)
        for reward in config.rewards.functions
    ]
    return Scorer(specs, workers=config.rewards.workers)


class Sampler:
    """The trainer's rollout source: prompts -> groups of rollouts -> scores."""

    def __init__(self, config: TrainConfig, pool: RolloutPool, scorer: Scorer, tokenizer):
        self.config, self.pool, self.scorer, self.tokenizer = config, pool, scorer, tokenizer
        self.params = SamplingParams(
            max_new_tokens=config.rollout.max_new_tokens,
            temperature=config.rollout.temperature,
            exit_rule=config.rollout.exit_rule.rule(),
            stop_token_ids=stop_token_ids(tokenizer),
        )

    def __call__(self, prompts: Sequence[Prompt], step: int) -> tuple[list[ScoredRollout], dict[str, float]]:
        seed, group = self.config.run.seed, range(self.config.trainer.group_size)
        requests = [
            RolloutRequest(prompt=prompt, seeds=tuple(sample_seed(seed, step, prompt.index, sample) for sample in group))
            for prompt in prompts
        ]
        started = time.monotonic()
        rollouts = self.pool.rollout(requests, self.params)
        sampled = time.monotonic()
        scored = score(self.scorer, self.tokenizer, [prompt for prompt in prompts for _ in group], rollouts)
        seconds = {"time/rollout_s": sampled - started, "time/reward_s": time.monotonic() - sampled}
        tokens = sum(len(rollout.completion_ids) for rollout in rollouts)
        return scored, {**seconds, "tokens/s": tokens / max(1e-9, sampled - started)}


def score(scorer: Scorer, tokenizer, prompts: Sequence[Prompt], rollouts) -> list[ScoredRollout]:
    """Completions as text, scored by every reward function; prompts and rollouts one to one."""
    texts = [tokenizer.decode(rollout.completion_ids, skip_special_tokens=True) for rollout in rollouts]
    names = sorted({name for prompt in prompts for name in prompt.columns})
    columns = {name: [prompt.columns.get(name) for prompt in prompts] for name in names}
    scores = scorer.score([prompt.messages for prompt in prompts], texts, columns)
    return [
        ScoredRollout(rollout=rollout, completion=text, rewards=item.rewards, statuses=item.statuses, reward=item.reward)
        for rollout, text, item in zip(rollouts, texts, scores, strict=True)
    ]


class Examiner:
    """Held-out accuracy at the gate's own exits, the same problems and the same exit rule whenever it is asked."""

    def __init__(self, config: TrainConfig, pool: RolloutPool, scorer: Scorer, tokenizer):
        self.config, self.pool = config, pool
        self.tokenizer = tokenizer

    def figures(self, when: str) -> dict:
        raise NotImplementedError


class StopOnSignal(TrainerCallback):
    """SIGINT and SIGTERM end the run after the update in progress, with a checkpoint. A second one ends it at once."""

    def __init__(self) -> None:
        self.received: int | None = None

    def __enter__(self) -> StopOnSignal:
        self.previous = {number: signal.signal(number, self._note) for number in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(self, *_) -> None:
        for number, handler in self.previous.items():
            signal.signal(number, handler)

    def _note(self, number: int, _frame) -> None:
        if self.received is not None:
            os._exit(128 + number)
        self.received = number
        tqdm.write("Stopping after this update; once more to stop at once.")

    def on_step_end(self, args, state, control, **_):
        if self.received is not None:
            control.should_save = True
            control.should_training_stop = True
