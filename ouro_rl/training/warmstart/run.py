"""Warm start: trains a small Ouro from scratch with Stage I (all loops, with the gate) and Stage II (only the gate) of
arXiv 2510.25741."""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers.utils import logging as transformers_logging

from ouro_rl.config.warmstart import TaskName, WarmstartConfig
from ouro_rl.core.atomic_write import write_atomically
from ouro_rl.model.checkpoint_contract import PublishedCode, complete_checkpoint
from ouro_rl.model.configuration_ouro import OuroConfig
from ouro_rl.model.model_card import model_card
from ouro_rl.model.modeling_ouro import OuroForCausalLM
from ouro_rl.model.tiny_tokenizer import make_tokenizer
from ouro_rl.tasks import arithmetic, function_writing, hops, walks
from ouro_rl.training.warmstart.batch import Batch, padded
from ouro_rl.training.warmstart.figures import (
    Measure,
    arithmetic_figures,
    function_writing_figures,
    hops_figures,
    walks_figures,
)
from ouro_rl.training.warmstart.stages import settling, stage_one, stage_two

FIGURES = "warmstart.json"
"""File next to the weights: the config, the history of losses, and the final evaluation."""


@dataclass(frozen=True, kw_only=True)
class WarmstartTask:
    """A task that a model can be trained on."""

    demonstrations: Callable[[WarmstartConfig, int], Iterator[tuple[str, ...]]]
    """(config, seed) -> an endless stream of (problem, answer), or of (problem, answer of loop 1, ..., of loop T)."""
    measure: Measure
    words: tuple[str, ...] = ()
    """Texts that are one token of its tokenizer, beyond those of every tiny tokenizer."""


TASKS: dict[TaskName, WarmstartTask] = {
    "arithmetic": WarmstartTask(
        demonstrations=lambda config, seed: arithmetic.demonstrations(
            seed, config.corpus.operations, config.corpus.careful
        ),
        measure=arithmetic_figures,
    ),
    "function_writing": WarmstartTask(
        demonstrations=lambda config, seed: function_writing.demonstrations(seed),
        measure=function_writing_figures,
    ),
    "hops": WarmstartTask(
        demonstrations=lambda config, seed: hops.demonstrations(seed, config.corpus.hops, config.model.total_ut_steps),
        measure=hops_figures,
        words=hops.BOXES,
    ),
    "walks": WarmstartTask(
        demonstrations=lambda config, seed: walks.demonstrations(seed, config.corpus.hops, config.model.total_ut_steps),
        measure=walks_figures,
        words=walks.WORDS,
    ),
}


def run_warmstart(config: WarmstartConfig) -> Path:
    """Train and save a checkpoint with tokenizer and chat template. Returns its folder."""
    transformers_logging.disable_progress_bar()
    torch.manual_seed(config.seed)
    tokenizer = make_tokenizer(TASKS[config.task].words)
    shape = OuroConfig(vocab_size=len(tokenizer), **config.model.model_dump(exclude_none=True))
    model = OuroForCausalLM(shape)
    started = time.monotonic()
    history = []
    for number, stage in enumerate((stage_one, stage_two, settling)):
        seed = config.seed + number  # so that one stage can be repeated from the result of the previous one
        torch.manual_seed(seed)
        history += stage(model, config, batches(config, tokenizer, seed))
    minutes = (time.monotonic() - started) / 60
    config.output.mkdir(parents=True, exist_ok=True)
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    model.save_pretrained(config.output)
    complete_checkpoint(config.output, tokenizer, PublishedCode(), card_of(config))
    figures = TASKS[config.task].measure(model, tokenizer, config)
    print(figures.text)
    record = {
        "config": config.model_dump(mode="json", exclude={"corpus": config.unread_corpus()}),
        "minutes": round(minutes, 1),
        "history": history,
        **figures.record,
    }
    write_atomically(config.output / FIGURES, [json.dumps(record, indent=1), "\n"])
    return config.output


def card_of(config: WarmstartConfig) -> str:
    """The README of a checkpoint from scratch."""
    about = [
        f"A small looped language model (Ouro, arXiv 2510.25741) with {config.model.total_ut_steps} loops, trained "
        f"from scratch by ouro-rl on the generated task `{config.task}`, to try reinforcement learning on.",
        f"`{FIGURES}` holds its configuration, its losses, and its figures before reinforcement learning.",
    ]
    return model_card(config.output.name, about, has_code=False)


def batches(config: WarmstartConfig, tokenizer: Any, seed: int) -> Iterator[Callable[[int], Batch]]:
    """An endless stream of batch makers: `next(stream)(n)` is a batch of n demonstrations."""
    stream = TASKS[config.task].demonstrations(config, seed)

    def encode(problem: str, *answers: str) -> tuple[list[int], list[list[int]]]:
        chat = [{"role": "user", "content": problem}]
        prompt = tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_dict=False)
        return prompt, [[*tokenizer(answer)["input_ids"], tokenizer.eos_token_id] for answer in answers]

    def batch(size: int) -> Batch:
        return padded([encode(*pair) for pair in itertools.islice(stream, size)], tokenizer.pad_token_id)

    while True:
        yield batch
