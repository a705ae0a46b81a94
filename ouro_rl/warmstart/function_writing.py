"""Warm start on function-writing tasks: `python -m ouro_rl.warmstart.function_writing configs/code_warmstart.yaml`.

The stages are those of `warmstart`; only the demonstrations and the figures at the end are of this task."""

from __future__ import annotations

import contextlib
import itertools
import json
import random
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from torch import Tensor
from transformers.utils import logging as transformers_logging

from ouro_rl.config.loader import load_config
from ouro_rl.config.warmstart import WarmstartConfig
from ouro_rl.core.atomic_write import write_atomically
from ouro_rl.core.rollout import RolloutRequest
from ouro_rl.core.sampling_params import ExitRule, SamplingParams
from ouro_rl.data.prompts import ChatFormat, render
from ouro_rl.model.configuration_ouro import OuroConfig
from ouro_rl.model.modeling_ouro import OuroForCausalLM
from ouro_rl.model.tiny_tokenizer import make_tokenizer
from ouro_rl.model.tokenizer import completion_texts, stop_token_ids
from ouro_rl.tasks.function_writing import demonstration, tasks
from ouro_rl.warmstart.run import FIGURES
from ouro_rl.warmstart.stages import padded, settling, stage_one, stage_two
from rewards.code_grader.reward import CodeReward
from rollout_workers.pool import RolloutPool

CARELESS = 0.5
"""Chance that a demonstration has a mistake in it."""


def run(config: WarmstartConfig) -> Path:
    """Train and save a checkpoint with tokenizer and chat template; returns its folder. `config.corpus` is not used."""
    transformers_logging.disable_progress_bar()
    torch.manual_seed(config.seed)
    tokenizer = make_tokenizer()
    model = OuroForCausalLM(OuroConfig(vocab_size=len(tokenizer), **config.model.model_dump(exclude_none=True)))
    started = time.monotonic()
    history = []
    for number, stage in enumerate((stage_one, stage_two, settling)):
        torch.manual_seed(config.seed + number)
        history += stage(model, config, demonstrations(tokenizer, config.seed + number))
    config.output.mkdir(parents=True, exist_ok=True)
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    model.save_pretrained(config.output)
    tokenizer.save_pretrained(config.output)
    minutes = (time.monotonic() - started) / 60
    figures = measure(model, tokenizer)
    print(json.dumps(figures))
    record = {
        "config": config.model_dump(mode="json", exclude={"corpus"}), "careless": CARELESS, "minutes": round(minutes, 1),
        "history": history, "held_out": figures,
    }  # fmt: skip
    write_atomically(config.output / FIGURES, [json.dumps(record, indent=1), "\n"])
    return config.output


def demonstrations(tokenizer, seed: int) -> Iterator[Callable[[int], tuple[Tensor, Tensor]]]:
    """An endless stream of programs; `next(stream)(n)` is a batch (ids [n, S], completion mask [n, S])."""
    stream = tasks(seed, held_out=False)
    rng = random.Random(seed)

    def batch(size: int) -> tuple[Tensor, Tensor]:
        pairs = []
        for task in itertools.islice(stream, size):
            chat = [{"role": "user", "content": task.text}]
            prompt = tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_dict=False)
            text = demonstration(task, CARELESS, rng)
            pairs.append((prompt, [*tokenizer(text)["input_ids"], tokenizer.eos_token_id]))
        return padded(pairs, tokenizer.pad_token_id)

    while True:
        yield batch


def measure(model: OuroForCausalLM, tokenizer) -> dict[str, float]:
    """Share of held-out tasks that are solved: sampled at temperature 1 with sampled exits, and greedy at the median exit;
    and mean depth a token, sampled."""
    rng = random.Random(0)
    count = len({task for task in itertools.islice(tasks(0, held_out=True), 2000)})
    rows = [task.row(rng) for task in itertools.islice(tasks(0, held_out=True), count)]
    pairs = [(row["problem"], {"tests": row["tests"]}) for row in rows]
    prompts = render(pairs, tokenizer, ChatFormat(), "held-out tasks")
    tests = [row["tests"] for row in rows]
    figures = {}
    with RolloutPool(0, model.config.to_dict()) as pool, contextlib.closing(CodeReward(all_or_nothing=True)) as code:
        pool.publish(model.state_dict(), 0)
        for name, rule, temperature in (
            ("sampled", ExitRule(kind="sample"), 1.0),
            ("greedy", ExitRule(kind="threshold", value=0.5), 0.0),
        ):
            params = SamplingParams(
                max_new_tokens=48, temperature=temperature, exit_rule=rule, stop_token_ids=stop_token_ids(tokenizer)
            )
            rollouts = pool.rollout(
                [RolloutRequest(prompt=prompt, seeds=(prompt.index,)) for prompt in prompts], params
            )
            values = code(completion_texts(tokenizer, rollouts), tests=tests)
            depths = [depth for rollout in rollouts for depth in rollout.depths]
            figures[name] = round(sum(value or 0.0 for value in values) / len(values), 3)
            figures[f"{name} depth"] = round(sum(depths) / len(depths), 2)
    return figures


if __name__ == "__main__":
    run(
        load_config(
            WarmstartConfig, [path for path in sys.argv[1:] if "=" not in path], [x for x in sys.argv[1:] if "=" in x]
        )
    )
