"""The training loops of the stages."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor
from tqdm import tqdm

from ouro_rl.config.warmstart import WarmstartConfig
from ouro_rl.core.sampling_params import NO_DEPTH, ExitRule
from ouro_rl.model.modeling_ouro import GATE_PARAMETERS, OuroForCausalLM
from ouro_rl.model.policy.exit_gate import exit_quantiles, log_stay
from ouro_rl.training.warmstart.batch import Batch
from ouro_rl.training.warmstart.losses import loop_cross_entropies, stage_one_loss, stage_two_losses

SETTLING_WARMUP = 20
"""Warmup updates of `settling`, whose optimizer starts without moments on a trained model."""
ADAM_BETAS = (0.9, 0.98)
"""The second is below AdamW's default of 0.999, because a warm start has hundreds of updates, not thousands."""
MAX_GRAD_NORM = 1.0
LAST_LR_SHARE = 0.02
"""Fraction of the peak learning rate at the end of a stage."""
HISTORY_EVERY = 50
"""Updates between two entries of the history; sparse, because it is stored next to the weights."""


def stage_one(model: OuroForCausalLM, config: WarmstartConfig, batches) -> list[dict]:
    stage = config.stage_one
    first, last = stage.beta

    def loss_of(step: int, batch: Batch) -> tuple[Tensor, Tensor]:
        states, gate_logits = loop_states_of(model, batch)
        loop_losses = loop_cross_entropies(model.lm_head(states), batch.loop_targets)
        beta = first + (last - first) * step / max(1, stage.steps)
        return stage_one_loss(loop_losses, gate_logits, beta), loop_losses.mean(1)

    return train(
        model, "Stage I", stage, batches, loss_of, list(model.parameters()), stage.lr_warmup, stage.weight_decay
    )


def stage_two(model: OuroForCausalLM, config: WarmstartConfig, batches) -> list[dict]:
    def loss_of(step: int, batch: Batch) -> tuple[Tensor, Tensor]:
        with torch.no_grad():  # one forward pass: only the gate is trained, on these states
            states, _ = loop_states_of(model, batch)
            loop_losses = loop_cross_entropies(model.lm_head(states), batch.loop_targets)
        return stage_two_losses(loop_losses, model.model.gate_logits(states)).mean(), loop_losses.mean(1)

    gate = [parameter for name, parameter in model.named_parameters() if name.endswith(GATE_PARAMETERS)]
    return train(model, "Stage II", config.stage_two, batches, loss_of, gate)


def settling(model: OuroForCausalLM, config: WarmstartConfig, batches) -> list[dict]:
    """Cross-entropy at depths sampled from the gate, with the replay that the trainer uses; the gate is not trained.

    The answer is taught at every depth, also where Stage I taught an early loop another one: a loop that cannot know
    the answer learns to be unsure of it."""

    def loss_of(step: int, batch: Batch) -> tuple[Tensor, Tensor]:
        ids, mask = batch.ids, batch.mask
        predicting = F.pad(mask[:, 1:], (0, 1))
        with torch.no_grad():
            drawn = draw_depths(model.model(input_ids=ids, use_cache=False).gate_logits)
        prompt = (mask.long().cumsum(1) == 0) & ~predicting
        depths = torch.where(predicting, drawn, torch.where(prompt, config.model.total_ut_steps, NO_DEPTH))
        logits = model(input_ids=ids, depths=depths, logits_to_keep=predicting, use_cache=False).logits
        loss = loop_cross_entropies(logits.unsqueeze(0), ids[mask]).mean()
        return loss, loss.detach().view(1)

    body = [parameter for name, parameter in model.named_parameters() if not name.endswith(GATE_PARAMETERS)]
    return train(model, "settling", config.settling, batches, loss_of, body, warmup=SETTLING_WARMUP)


def draw_depths(gate_logits: Tensor) -> Tensor:
    """Sample one depth per token from its exit distribution: gate logits [T, ...] -> depths [...]."""
    survival = log_stay(gate_logits[:-1]).cumsum(0)
    quantiles = exit_quantiles(ExitRule(kind="sample"), torch.rand(gate_logits.shape[1:], dtype=torch.float64))
    return gate_logits.shape[0] - (survival <= quantiles).sum(0)


def train(
    model, name: str, stage, batches, loss_of, parameters: Sequence[Tensor], warmup: int = 0, weight_decay: float = 0.0
) -> list[dict]:
    """The training loop of all stages. Returns a sparse history of losses (nats per token; per loop if there are
    several)."""
    groups = [
        {"params": [p for p in parameters if p.dim() > 1], "weight_decay": weight_decay},
        {"params": [p for p in parameters if p.dim() <= 1], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=stage.lr, betas=ADAM_BETAS)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: warmup_cosine(step, warmup, stage.steps))
    history = []
    bar = tqdm(range(stage.steps), desc=name, mininterval=2)
    for step in bar:
        loss, parts = loss_of(step, next(batches)(stage.batch_size))
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, MAX_GRAD_NORM)
        optimizer.step()
        model.zero_grad(set_to_none=True)
        schedule.step()
        if step % HISTORY_EVERY == 0 or step + 1 == stage.steps:
            rounded = [round(x, 4) for x in parts.tolist()]
            history.append({"stage": name, "step": step, "loss": round(loss.item(), 4), "losses": rounded})
            bar.set_postfix_str(f"loss {loss.item():.3f} ({' '.join(f'{x:.3f}' for x in rounded)})")
    return history


def loop_states_of(model: OuroForCausalLM, batch: Batch) -> tuple[Tensor, Tensor]:
    """States [T, n, hidden] and gate logits [T, n] of every loop at the n positions that predict a token of a
    completion."""
    output = model.model(input_ids=batch.ids, use_cache=False)
    predicting = batch.mask[:, 1:]
    states = torch.stack([state[:, :-1][predicting] for state in output.loop_states])
    return states, output.gate_logits[:, :, :-1][:, predicting]


def warmup_cosine(step: int, warmup: int, steps: int) -> float:
    """Fraction of the peak learning rate: linear warmup, then half a cosine down to `LAST_LR_SHARE`."""
    if step < warmup:
        return (step + 1) / warmup
    progress = (step - warmup) / max(1, steps - warmup)
    fall = 0.5 * (1 + torch.cos(torch.tensor(progress * torch.pi)).item())
    return LAST_LR_SHARE + (1 - LAST_LR_SHARE) * fall
