"""Warm start: a small Ouro from scratch, by the paper's Stage I (all loops, with the gate) and Stage II (the gate alone)."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path

import torch
from torch import Tensor
from transformers.utils import logging as transformers_logging

from ouro_rl.config.warmstart import WarmstartConfig
from ouro_rl.core.atomic_write import write_atomically
from ouro_rl.core.sampling_params import ExitRule, SamplingParams
from ouro_rl.data.prompts import load_benchmark
from ouro_rl.evaluation.evaluate import EvalRow, evaluate, table
from ouro_rl.model.configuration_ouro import OuroConfig
from ouro_rl.model.modeling_ouro import OuroForCausalLM
from ouro_rl.model.tiny_tokenizer import make_tokenizer
from ouro_rl.model.tokenizer import stop_token_ids
from ouro_rl.tasks.arithmetic import problems, solution
from ouro_rl.warmstart.stages import padded, settling, stage_one, stage_two
from rollout_workers.pool import RolloutPool

FIGURES = "warmstart.json"
"""Beside the weights: the config, the losses on the way, and what was measured at the end."""


def run_warmstart(config: WarmstartConfig) -> Path:
    """Train and save a checkpoint with tokenizer and chat template; returns its folder."""
    transformers_logging.disable_progress_bar()
    torch.manual_seed(config.seed)
    tokenizer = make_tokenizer()
    shape = OuroConfig(vocab_size=len(tokenizer), **config.model.model_dump(exclude_none=True))
    model = OuroForCausalLM(shape)
    started = time.monotonic()
    history = []
    for number, stage in enumerate((stage_one, stage_two, settling)):
        seed = config.seed + number  # a stage can be repeated alone, from what the one before left
        torch.manual_seed(seed)
        history += stage(model, config, demonstrations(config, tokenizer, seed))
    config.output.mkdir(parents=True, exist_ok=True)
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    model.save_pretrained(config.output)
    tokenizer.save_pretrained(config.output)
    minutes = (time.monotonic() - started) / 60
    rows = measure(model, tokenizer, config)
    print(table(rows))
    record = {
        "config": config.model_dump(mode="json"), "minutes": round(minutes, 1), "history": history,
        "figures": [asdict(row) for row in rows],
    }  # fmt: skip
    write_atomically(config.output / FIGURES, [json.dumps(record, indent=1), "\n"])
    return config.output


def measure(model: OuroForCausalLM, tokenizer, config: WarmstartConfig) -> list[EvalRow]:
    """Greedy held-out accuracy and depth at every number of loops, over all problems and by their number of operations;
    then at the gate's median exit, and sampled at temperature 1 with sampled exits."""
    loops, operations = config.model.total_ut_steps, config.corpus.operations
    fixed = [ExitRule(kind="fixed", value=depth) for depth in range(1, loops + 1)]
    asked = [(rule, 0.0, operations) for rule in (*fixed, ExitRule(kind="threshold", value=0.5))]
    asked += [(ExitRule(kind="sample"), 1.0, operations)]
    asked += [(rule, 0.0, (count,)) for count in operations for rule in fixed]
    rows = []
    with RolloutPool(0, model.config.to_dict()) as pool:
        pool.publish(model.state_dict(), 0)
        for rule, temperature, counts in asked:
            prompts = load_benchmark("arithmetic", tokenizer=tokenizer, limit=config.eval_problems, operations=counts)
            params = SamplingParams(
                max_new_tokens=64, temperature=temperature, exit_rule=rule, stop_token_ids=stop_token_ids(tokenizer)
            )
            only = "" if counts == operations else f", {counts[0]} operations"
            rows.append(evaluate(pool, prompts, params, tokenizer=tokenizer, name=rule.label() + only))
    return rows


def demonstrations(config: WarmstartConfig, tokenizer, seed: int) -> Iterator[Callable[[int], tuple[Tensor, Tensor]]]:
    """An endless stream of worked problems; `next(stream)(n)` is a batch (ids [n, S], completion mask [n, S])."""
    stream = problems(seed, config.corpus.operations, held_out=False)
    rng = random.Random(seed)

    def encode() -> tuple[list[int], list[int]]:
        problem = next(stream)
        chat = [{"role": "user", "content": problem.text}]
        prompt = tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_dict=False)
        text = solution(problem, config.corpus.careful, rng)
        return prompt, [*tokenizer(text)["input_ids"], tokenizer.eos_token_id]

    def batch(size: int) -> tuple[Tensor, Tensor]:
        return padded([encode() for _ in range(size)], tokenizer.pad_token_id)

    while True:
        yield batch
