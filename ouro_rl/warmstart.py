"""Warm start: a small Ouro from scratch, by the paper's Stage I (all loops, with the gate) and Stage II (the gate alone)."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm

from ouro_rl.arithmetic import problems, solution
from ouro_rl.config import WarmstartConfig
from ouro_rl.losses import loop_cross_entropies, stage_one_loss, stage_two_loss
from ouro_rl.model import OuroConfig, OuroForCausalLM
from ouro_rl.tiny_tokenizer import make_tokenizer

GATE = ("model.early_exit_gate.weight", "model.early_exit_gate.bias")


def run_warmstart(config: WarmstartConfig) -> Path:
    """Train and save a checkpoint with tokenizer and chat template; returns its folder."""
    torch.manual_seed(config.seed)
    tokenizer = make_tokenizer()
    shape = OuroConfig(vocab_size=len(tokenizer), **config.model.model_dump(exclude_none=True))
    model = OuroForCausalLM(shape)
    started = time.monotonic()
    batches = demonstrations(config, tokenizer)
    history = [*stage_one(model, config, batches), *stage_two(model, config, batches)]
    config.output.mkdir(parents=True, exist_ok=True)
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    model.save_pretrained(config.output)
    tokenizer.save_pretrained(config.output)
    record = {"config": config.model_dump(mode="json"), "minutes": (time.monotonic() - started) / 60, "history": history}
    (config.output / "warmstart.json").write_text(json.dumps(record, indent=1))
    return config.output


def demonstrations(config: WarmstartConfig, tokenizer) -> Iterator[Callable[[int], tuple[Tensor, Tensor]]]:
    """An endless stream of worked problems; `next(stream)(n)` is a batch (ids [n, S], completion mask [n, S])."""
    stream = problems(config.seed, config.corpus.operations, held_out=False)
    rng = random.Random(config.seed)

    def encode() -> tuple[list[int], list[int]]:
        problem = next(stream)
        chat = [{"role": "user", "content": problem.text}]
        prompt = tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_dict=False)
        text = solution(problem, config.corpus.careful, rng)
        return prompt, [*tokenizer(text)["input_ids"], tokenizer.eos_token_id]

    def batch(size: int) -> tuple[Tensor, Tensor]:
        pairs = [encode() for _ in range(size)]
        length = max(len(prompt) + len(completion) for prompt, completion in pairs)
        ids = torch.full((size, length), tokenizer.pad_token_id)
        mask = torch.zeros(size, length, dtype=torch.bool)
        for row, (prompt, completion) in enumerate(pairs):
            end = len(prompt) + len(completion)
            ids[row, :end] = torch.tensor(prompt + completion)
            mask[row, len(prompt) : end] = True
        return ids, mask

    while True:
        yield batch


def stage_one(model: OuroForCausalLM, config: WarmstartConfig, batches) -> list[dict]:
    stage = config.stage_one
    decay = [p for p in model.parameters() if p.dim() > 1]
    plain = [p for p in model.parameters() if p.dim() <= 1]
    groups = [{"params": decay, "weight_decay": stage.weight_decay}, {"params": plain, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=stage.lr, betas=(0.9, 0.98))
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: warmup_cosine(step, stage.lr_warmup, stage.steps))
    first, last = stage.beta

    def loss_of(step: int, loop_losses: Tensor, gate_logits: Tensor) -> Tensor:
        return stage_one_loss(loop_losses, gate_logits, first + (last - first) * step / max(1, stage.steps))

    return train(model, "Stage I", stage, batches, optimizer, schedule, loss_of)


def stage_two(model: OuroForCausalLM, config: WarmstartConfig, batches) -> list[dict]:
    stage = config.stage_two
    gate = [parameter for name, parameter in model.named_parameters() if name in GATE]
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name in GATE)
    optimizer = torch.optim.AdamW(gate, lr=stage.lr, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: warmup_cosine(step, 0, stage.steps))

    def loss_of(step: int, loop_losses: Tensor, gate_logits: Tensor) -> Tensor:
        return stage_two_loss(loop_losses, gate_logits)

    history = train(model, "Stage II", stage, batches, optimizer, schedule, loss_of)
    for parameter in model.parameters():
        parameter.requires_grad_(True)
    return history


def train(model, name: str, stage, batches, optimizer, schedule, loss_of) -> list[dict]:
    """The loop that both stages share. Returns a sparse history of losses by loop (nats a token)."""
    history = []
    bar = tqdm(range(stage.steps), desc=name, mininterval=2)
    for step in bar:
        ids, mask = next(batches)(stage.batch_size)
        loop_losses, gate_logits = loop_losses_of(model, ids, mask)
        loss = loss_of(step, loop_losses, gate_logits)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        schedule.step()
        if step % 50 == 0 or step + 1 == stage.steps:
            by_loop = [round(x, 4) for x in loop_losses.mean(1).tolist()]
            history.append({"stage": name, "step": step, "loss": round(loss.item(), 4), "loop_losses": by_loop})
            bar.set_postfix_str(f"loss {loss.item():.3f}, by loop " + " ".join(f"{x:.3f}" for x in by_loop))
    return history


def loop_losses_of(model: OuroForCausalLM, ids: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Cross-entropy and gate logits of every loop at the tokens of `mask` [B, S]: two tensors [T, n]."""
    output = model.model(input_ids=ids, use_cache=False)
    targets, predicting = ids[:, 1:][mask[:, 1:]], mask[:, 1:]
    states = torch.stack([state[:, :-1][predicting] for state in output.loop_states])
    return loop_cross_entropies(model.lm_head(states), targets), output.gate_logits[:, :, :-1][:, predicting]


def warmup_cosine(step: int, warmup: int, steps: int) -> float:
    """Share of the peak learning rate: linear up, then half a cosine down to 2 %."""
    if step < warmup:
        return (step + 1) / warmup
    progress = (step - warmup) / max(1, steps - warmup)
    return 0.02 + 0.98 * 0.5 * (1 + torch.cos(torch.tensor(progress * torch.pi)).item())
