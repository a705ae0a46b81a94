"""What a training config says about evaluation: the held-out problems, and how they are answered."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from ouro_rl.config.train import TrainConfig, difficulties_of
from ouro_rl.core.engine_config import EngineConfig
from ouro_rl.core.rollout import Prompt
from ouro_rl.core.sampling_params import DepthPolicy, ExitRule, SamplingParams
from ouro_rl.data.fitting import keep_fitting
from ouro_rl.data.gold_answers import keep_gradable
from ouro_rl.data.prompts import ChatFormat, StoredAs, load_benchmark
from ouro_rl.data.sampling import OF_ROLLOUTS, StopKeys, sampling_params
from ouro_rl.model.configuration_ouro import OuroConfig
from rollout_workers.engine.limits import prompt_limit


def held_out_prompts(
    config: TrainConfig, tokenizer: Any, *, data_file: Path | None = None, key: str = "eval.source"
) -> list[Prompt]:
    """The problems of `eval.source` (`key` in errors), in the chat format of training: always the same ones.
    `data_file` has them if they are not to come from the hub."""
    assert config.eval.source is not None, "asked only where there is an evaluation"
    prompts = load_benchmark(
        config.eval.source,
        tokenizer=tokenizer,
        data_file=data_file,
        limit=config.eval.limit,
        difficulties=difficulties_of(config.eval),
        chat=ChatFormat.of(config.data),
        stored=StoredAs(name=config.eval.name, split=config.eval.split, revision=config.eval.revision),
        question_column=config.eval.question_column,
        answer_column=config.eval.answer_column,
    )
    return keep_gradable(prompts, f"{key} {config.eval.source}", workers=config.rewards.workers)


def reward_options(config: TrainConfig) -> dict[str, Mapping[str, Any]]:
    """By reward, the options with which training grades; evaluation grades with the same."""
    return {reward.name: reward.kwargs for reward in config.rewards.functions}


def greedy_params(config: TrainConfig, tokenizer: Any, keys: StopKeys = OF_ROLLOUTS) -> SamplingParams:
    """Greedy decoding with the exit rule of `eval`; what `eval` leaves open is as in rollouts. Raises UserError as
    `sampling_params` does."""
    asked = config.eval
    rollout = sampling_params(config.rollout, tokenizer, keys, asked.max_new_tokens)
    return replace(
        rollout,
        temperature=0.0,
        # These filters always keep the most likely token, so greedy decoding does not need them.
        filters=replace(rollout.filters, top_k=0, top_p=1.0, min_p=0.0),
        exit_rule=asked.exit_rule.rule(),
        depth_policy=replace(
            rollout.depth_policy,
            kv_rule=asked.kv_rule or config.rollout.kv_rule,
            gate_temperature=asked.gate_temperature,
            exploration=0.0,  # it is there for training to see other depths, and no part of what is trained
        ),
        early_stop=None,
    )


def policy_for(rule: ExitRule, policy: DepthPolicy) -> DepthPolicy:
    """With a fixed depth no loop beyond it runs, in prompts neither, and no KV rule reads beyond it."""
    return replace(policy, min_depth=1, max_depth=int(rule.level)) if rule.kind == "fixed" else policy


def fitting_under(
    prompts: Sequence[Prompt], asked: Sequence[SamplingParams], shape: OuroConfig, engine: EngineConfig, where: str
) -> list[Prompt]:
    """The prompts that fit whichever of `asked` completes them, as `keep_fitting` keeps them."""
    limits = [prompt_limit(shape, params, engine, getattr(torch, engine.dtype)) for params in asked]
    return keep_fitting(prompts, min(limits, key=lambda limit: limit.tokens), where)
