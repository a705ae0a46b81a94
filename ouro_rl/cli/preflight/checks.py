"""`ouro-rl check`: finds within a minute what would make a long run fail, and reports it in plain words."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers.trainer_utils import SaveStrategy

from ouro_rl.config.train import TrainConfig
from ouro_rl.core.errors import RunError
from ouro_rl.data.fitting import keep_fitting
from ouro_rl.data.prompts import load_prompts
from ouro_rl.data.sampling import sampling_params
from ouro_rl.launch import limit_of, make_scorer, start_pool
from ouro_rl.model.checkpoint import load_policy
from ouro_rl.model.tokenizer import other_token_ids, stop_token_ids, tokenizer_file
from ouro_rl.run_dir.run_dir import RunDir
from ouro_rl.training.prefetch import RolloutSource
from ouro_rl.training.rollout_source import GroupSampler
from ouro_rl.training.trainer import OuroGRPOTrainer, gap_limit
from rewards.math_grader.golds import check_golds

TRAINER_BYTES = 16
"""Bytes per parameter in the trainer: weight, gradient and Adam's two moments, in fp32."""
NO_LIMIT = 1e9
"""`logp_gap_limit` of preflight updates, in nats: they must finish, and the gap is then reported as a finding."""
CHECK_PROMPTS, CHECK_GROUP, CHECK_TOKENS = 4, 4, 256
"""Prompts of a preflight update, maximum completions per prompt, and maximum tokens per completion."""


@dataclass(frozen=True, kw_only=True)
class Finding:
    """The result of one check."""

    name: str
    passed: bool
    detail: str


def run_check(config: TrainConfig) -> int:
    """Run every check and print one line for each. Returns 0 if all pass, else 1. Raises UserError for what cannot be
    loaded."""
    passed = True
    try:
        for finding in findings(config):
            print(f"{'ok  ' if finding.passed else 'FAIL'}  {finding.name}: {finding.detail}", flush=True)
            passed &= finding.passed
    except RunError as error:
        print(f"FAIL  {error}")
        passed = False
    print("Ready to train." if passed else "Not ready: fix what failed above.")
    return 0 if passed else 1


def findings(config: TrainConfig) -> Iterator[Finding]:
    """Yield the result of each check as it finishes; later checks depend on earlier ones."""
    model, tokenizer = load_policy(config.model.path, torch.float32, config.model.revision)
    config.check_loops(model.config.total_ut_steps)
    yield Finding(name="model", passed=True, detail=f"{model.num_parameters():,} parameters, {config.model.path}")
    yield check_tokens(model, tokenizer)
    yield check_token_ids(tokenizer, config.model.path, config.model.revision)
    prompts = load_prompts(config.data, tokenizer, seed=config.run.seed)
    example = tokenizer.decode(prompts[0].token_ids)
    yield Finding(name="prompts", passed=True, detail=f"{len(prompts):,}; the first is {example!r}")
    limit = limit_of(config, sampling_params(config.rollout, tokenizer), model.config)
    fitting = keep_fitting(prompts, limit, f"data.source {config.data.source}")
    detail = f"{len(fitting):,} of {len(prompts):,} fit into {limit.tokens:,} tokens"
    yield Finding(name="prompt lengths", passed=True, detail=detail)
    prompts = fitting
    maths = [reward for reward in config.rewards.functions if reward.name == "math"]
    if maths:
        golds = [prompt.columns.get("answer", prompt.columns.get("solution", "")) for prompt in prompts]
        bad = check_golds(golds, workers=config.rewards.workers, kwargs=maths[0].kwargs)
        detail = f"{len(golds) - len(bad):,} of {len(golds):,} grade as equal to themselves"
        detail += "".join(
            f"; not row {prompts[i].index + 1}, {str(golds[i])[:60]!r} ({why})" for i, why in list(bad.items())[:3]
        )
        yield Finding(name="gold answers", passed=len(bad) < len(golds), detail=detail + ("; left out" if bad else ""))
        prompts = [prompt for i, prompt in enumerate(prompts) if i not in bad]
    yield memory_estimate(config, model)
    with start_pool(config, model.config) as pool, make_scorer(config) as scorer:
        pool.publish(model.state_dict(), 0)
        prints = pool.fingerprints()
        yield Finding(
            name="weights",
            passed=len(set(prints)) == 1,
            detail=f"the same on {len(prints)} rollout engine(s)"
            if len(set(prints)) == 1
            else f"differ between rollout engines: {prints}",
        )
        small = small_job(config)
        sampler = GroupSampler(small, sampling_params(small.rollout, tokenizer), pool, scorer, tokenizer, prompts)
        before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
        updates = {"tokenizer": tokenizer, "prompts": prompts, "publish": pool.publish}
        yield from idle_step(small, model, sampler, before, gap_limit(config), **updates)
        yield real_updates(small, model, sampler, before, gap_limit(config), **updates)


def check_tokens(model, tokenizer) -> Finding:
    """Special tokens must be distinct and agree with the model; in the published configs bos, eos and pad are all 0."""
    ids = {"bos": tokenizer.bos_token_id, "eos": tokenizer.eos_token_id, "pad": tokenizer.pad_token_id}
    clear = ids["eos"] is not None and ids["eos"] != ids["pad"] and ids["eos"] in stop_token_ids(tokenizer)
    agrees = model.config.eos_token_id == ids["eos"] and model.config.pad_token_id == ids["pad"]
    return Finding(name="special tokens", passed=clear and agrees, detail=", ".join(f"{k} {v}" for k, v in ids.items()))


def check_token_ids(tokenizer, path: str, revision: str | None = None) -> Finding:
    """The tokenizer in use must compute what the checkpoint's `tokenizer.json` says; else prompts are not those that
    the model knows."""
    name, file = "token ids", tokenizer_file(path, revision)
    if file is None:
        return Finding(name=name, passed=True, detail="no tokenizer.json to compare with")
    text = other_token_ids(tokenizer, file)
    detail = "those of tokenizer.json" if text is None else f"differ from those of {file} for {text!r}"
    return Finding(name=name, passed=text is None, detail=detail)


def memory_estimate(config: TrainConfig, model) -> Finding:
    """Memory of training and of one rollout engine, without activations."""
    parameters, shape = model.num_parameters(), model.config
    width = 4 if config.model.dtype == "float32" else 2
    longest = config.data.max_prompt_tokens + config.rollout.max_new_tokens
    loops = config.rollout.depth_policy().max_loops(shape.total_ut_steps)
    per_token = 2 * shape.num_hidden_layers * shape.num_key_value_heads * shape.head_dim * width * loops
    cache, limit = per_token * longest * config.rollout.max_batch, config.rollout.kv_memory_gib
    fits = True
    if limit is not None:
        cache, fits = min(cache, int(limit * 2**30)), per_token * longest <= limit * 2**30
    parts = {
        "trainer (fp32 weights, gradients, Adam)": TRAINER_BYTES * parameters,
        "engine weights": width * parameters,
        "engine KV cache, at most": cache,
    }
    free = torch.cuda.mem_get_info()[0] if torch.cuda.is_available() else _free_memory()
    detail = ", ".join(f"{name} {size / 2**30:.2f} GiB" for name, size in parts.items())
    if not fits:
        detail += f"; the longest sequence takes {per_token * longest / 2**30:.2f} GiB, more than rollout.kv_memory_gib"
    passed = fits and sum(parts.values()) < free
    return Finding(name="memory", passed=passed, detail=f"{detail}; free {free / 2**30:.1f} GiB")


def _free_memory() -> int:
    fields = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
    return int(fields["MemAvailable"].split()[0]) * 1024


def small_job(config: TrainConfig) -> TrainConfig:
    """The same job with updates on a few short completions, at constant learning rates."""
    group = min(CHECK_GROUP, config.trainer.group_size)
    trainer = {
        "logp_gap_limit": NO_LIMIT, "updates_per_batch": 1, "max_staleness": 0, "lr_scheduler": "constant",
        "lr_warmup": 0, "prompts_per_step": CHECK_PROMPTS, "group_size": group, "micro_batch": group,
        "refill": 0,
    }  # fmt: skip
    asked = config.rollout
    rollout: dict[str, Any] = {"max_new_tokens": min(CHECK_TOKENS, asked.max_new_tokens)}
    rollout["anytime"] = asked.anytime[: group - 1]
    if asked.thinking_budget is not None:  # thoughts are closed in these completions too
        closing = len(asked.thinking_closing.encode())  # at most a token for each byte
        rollout["thinking_budget"] = min(CHECK_TOKENS // 2, asked.thinking_budget)
        rollout["max_new_tokens"] = min(CHECK_TOKENS + closing, asked.max_new_tokens)
    return with_sections(config, trainer=trainer, rollout=rollout)


def with_sections(config: TrainConfig, **changes: dict[str, Any]) -> TrainConfig:
    """The config with some keys of some sections changed."""
    sections = {name: getattr(config, name).model_copy(update=values) for name, values in changes.items()}
    return config.model_copy(update=sections)


def run_updates(
    config: TrainConfig, model, source: RolloutSource, *, tokenizer, prompts, publish: Callable
) -> list[dict[str, Any]]:
    """Train `model` in a temporary folder; returns the rows of `metrics.jsonl`."""
    with tempfile.TemporaryDirectory(prefix="ouro-rl-check-") as folder:
        run_dir = RunDir(folder)
        trainer = OuroGRPOTrainer(
            model, tokenizer, config, prompts, rollout_source=source, publish=publish, run_dir=run_dir
        )
        trainer.args.save_strategy = SaveStrategy.NO
        trainer.train()
        return run_dir.read_metrics()


def idle_step(
    config: TrainConfig, model, sampler: RolloutSource, before: Mapping[str, Tensor], limit: float, **updates: Any
) -> Iterator[Finding]:
    """One small update at learning rate 0: worker and trainer must agree on every log-prob, and no weight may change
    from what it was `before`."""
    idle = with_sections(config, trainer={"steps": 1, "lr": 0.0, "weight_decay": 0.0}, gate={"lr": 0.0})
    (row,) = run_updates(idle, model, sampler, **updates)
    yield gap_finding("log-prob gap", row, limit)
    yield Finding(
        name="rewards",
        passed=row["reward/unscored"] <= config.rewards.max_unscored,
        detail=f"mean {row['reward/mean']:.3f}, unscored {row['reward/unscored']:.0%}",
    )
    moved = moved_tensors(model, before)
    yield Finding(
        name="step at learning rate 0",
        passed=not moved,
        detail="changes nothing" if not moved else f"changes {len(moved)} tensors, {moved[0]} first",
    )


def real_updates(
    config: TrainConfig, model, sampler: RolloutSource, before: Mapping[str, Tensor], limit: float, **updates: Any
) -> Finding:
    """Two small updates at the job's learning rates: worker and trainer must still agree when weights and gate have
    moved. The model then gets its weights from `before` back."""
    _, row = run_updates(with_sections(config, trainer={"steps": 2}), model, with_a_signal(sampler), **updates)
    moved = len(moved_tensors(model, before))
    model.load_state_dict(before)
    return gap_finding("log-prob gap after an update", row, limit, f"; it changed {moved} of {len(before)} tensors")


def with_a_signal(source: RolloutSource) -> RolloutSource:
    """The same rollouts with rewards that differ within every group, so that an update moves every weight even where
    all completions are wrong."""

    def sample(prompts, step):
        scored, timings = source(prompts, step)
        return [replace(item, reward=float(item.rollout.sample_index % 2)) for item in scored], timings

    return sample


def gap_finding(name: str, row: Mapping[str, float], limit: float, note: str = "") -> Finding:
    figures = f"max {row['logp_gap/max']:.2g}, mean {row['logp_gap/mean']:.2g} (limit {limit:g})"
    return Finding(name=name, passed=row["logp_gap/max"] <= limit, detail=figures + note)


def moved_tensors(model, before: Mapping[str, Tensor]) -> list[str]:
    return [name for name, tensor in model.state_dict().items() if not torch.equal(tensor, before[name])]
