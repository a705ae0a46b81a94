"""Warm start: a small Ouro from scratch, by the paper's Stage I (all loops, with the gate) and Stage II (the gate alone)."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor
from tqdm import tqdm
from transformers.utils import logging as transformers_logging

from ouro_rl.config.warmstart import WarmstartConfig
from ouro_rl.core.atomic_write import write_atomically
from ouro_rl.core.sampling_params import NO_DEPTH, ExitRule, SamplingParams
from ouro_rl.data.prompts import load_benchmark
from ouro_rl.evaluation.evaluate import EvalRow, evaluate, table
from ouro_rl.model.configuration_ouro import OuroConfig
from ouro_rl.model.modeling_ouro import OuroForCausalLM
from ouro_rl.model.tiny_tokenizer import make_tokenizer
from ouro_rl.model.tokenizer import stop_token_ids
from ouro_rl.policy.exit_gate import exit_quantiles, log_stay
from ouro_rl.tasks.arithmetic import problems, solution
from ouro_rl.training.losses import loop_cross_entropies, stage_one_loss, stage_two_loss
from rollout_workers.pool import RolloutPool

FIGURES = "warmstart.json"
"""Beside the weights: the config, the losses on the way, and what was measured at the end."""
GATE = ("model.early_exit_gate.weight", "model.early_exit_gate.bias")


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


def padded(pairs: Sequence[tuple[list[int], list[int]]], pad_token_id: int) -> tuple[Tensor, Tensor]:
    """(prompt, completion) token ids -> ids [n, S], filled on the right, and where the completions are, bool [n, S]."""
    length = max(len(prompt) + len(completion) for prompt, completion in pairs)
    ids = torch.full((len(pairs), length), pad_token_id)
    mask = torch.zeros(len(pairs), length, dtype=torch.bool)
    for row, (prompt, completion) in enumerate(pairs):
        end = len(prompt) + len(completion)
        ids[row, :end] = torch.tensor(prompt + completion)
        mask[row, len(prompt) : end] = True
    return ids, mask


def stage_one(model: OuroForCausalLM, config: WarmstartConfig, batches) -> list[dict]:
    stage = config.stage_one
    first, last = stage.beta

    def loss_of(step: int, ids: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        loop_losses, gate_logits = loop_losses_of(model, ids, mask)
        beta = first + (last - first) * step / max(1, stage.steps)
        return stage_one_loss(loop_losses, gate_logits, beta), loop_losses.mean(1)

    return train(model, "Stage I", stage, batches, loss_of, list(model.parameters()), stage.lr_warmup, stage.weight_decay)


def stage_two(model: OuroForCausalLM, config: WarmstartConfig, batches) -> list[dict]:
    def loss_of(step: int, ids: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        with torch.no_grad():  # one forward: only the gate learns, and it reads the states
            states, _ = loop_states_of(model, ids, mask)
            loop_losses = loop_cross_entropies(model.lm_head(states), ids[:, 1:][mask[:, 1:]])
        return stage_two_loss(loop_losses, model.model.gate_logits(states)), loop_losses.mean(1)

    gate = [parameter for name, parameter in model.named_parameters() if name in GATE]
    return train(model, "Stage II", config.stage_two, batches, loss_of, gate)


def settling(model: OuroForCausalLM, config: WarmstartConfig, batches) -> list[dict]:
    """Cross-entropy at depths drawn from the gate, by the trainer's own replay; the gate stays as it is."""

    def loss_of(step: int, ids: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        predicting = F.pad(mask[:, 1:], (0, 1))
        with torch.no_grad():
            drawn = draw_depths(model.model(input_ids=ids, use_cache=False).gate_logits)
        prompt = (mask.long().cumsum(1) == 0) & ~predicting
        depths = torch.where(predicting, drawn, torch.where(prompt, config.model.total_ut_steps, NO_DEPTH))
        logits = model(input_ids=ids, depths=depths, logits_to_keep=predicting, use_cache=False).logits
        loss = loop_cross_entropies(logits.unsqueeze(0), ids[mask]).mean()
        return loss, loss.detach().view(1)

    body = [parameter for name, parameter in model.named_parameters() if name not in GATE]
    return train(model, "settling", config.settling, batches, loss_of, body, warmup=20)


def draw_depths(gate_logits: Tensor) -> Tensor:
    """One depth a token from its exit distribution: [T, ...] -> [...]."""
    survival = log_stay(gate_logits[:-1]).cumsum(0)
    quantiles = exit_quantiles(ExitRule(kind="sample"), torch.rand(gate_logits.shape[1:], dtype=torch.float64))
    return gate_logits.shape[0] - (survival <= quantiles).sum(0)


def train(
    model, name: str, stage, batches, loss_of, parameters: list[Tensor], warmup: int = 0, weight_decay: float = 0.0
) -> list[dict]:
    """The loop that all stages share. Returns a sparse history of losses (nats a token, by loop where there are several)."""
    groups = [
        {"params": [p for p in parameters if p.dim() > 1], "weight_decay": weight_decay},
        {"params": [p for p in parameters if p.dim() <= 1], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=stage.lr, betas=(0.9, 0.98))
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: warmup_cosine(step, warmup, stage.steps))
    history = []
    bar = tqdm(range(stage.steps), desc=name, mininterval=2)
    for step in bar:
        ids, mask = next(batches)(stage.batch_size)
        loss, parts = loss_of(step, ids, mask)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        model.zero_grad(set_to_none=True)
        schedule.step()
        if step % 50 == 0 or step + 1 == stage.steps:
            rounded = [round(x, 4) for x in parts.tolist()]
            history.append({"stage": name, "step": step, "loss": round(loss.item(), 4), "losses": rounded})
            bar.set_postfix_str(f"loss {loss.item():.3f} ({' '.join(f'{x:.3f}' for x in rounded)})")
    return history


def loop_losses_of(model: OuroForCausalLM, ids: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Cross-entropy and gate logits of every loop at the tokens of `mask` [B, S]: two tensors [T, n]."""
    states, gate_logits = loop_states_of(model, ids, mask)
    return loop_cross_entropies(model.lm_head(states), ids[:, 1:][mask[:, 1:]]), gate_logits


def loop_states_of(model: OuroForCausalLM, ids: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """States [T, n, hidden] and gate logits [T, n] of every loop where a token of `mask` [B, S] comes next."""
    output = model.model(input_ids=ids, use_cache=False)
    predicting = mask[:, 1:]
    states = torch.stack([state[:, :-1][predicting] for state in output.loop_states])
    return states, output.gate_logits[:, :, :-1][:, predicting]


def warmup_cosine(step: int, warmup: int, steps: int) -> float:
    """Share of the peak learning rate: linear up, then half a cosine down to 2 %."""
    if step < warmup:
        return (step + 1) / warmup
    progress = (step - warmup) / max(1, steps - warmup)
    return 0.02 + 0.98 * 0.5 * (1 + torch.cos(torch.tensor(progress * torch.pi)).item())
