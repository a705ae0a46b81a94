"""`ouro-rl bench probes`: what probe rows cost the trainer, and what credit over depth saves in variance.

On the packaged tiny checkpoint and generated arithmetic: a micro batch of groups, sampled by the engine at two mean
depths, to which the bias of the gate is shifted. The two sides take turns, each a forward pass, loss and backward pass
as in the trainer: with the sampled loops alone, and with all samples probed and all credit spread over the loops.

    probe_cost_D      seconds with probes / without, at mean depth D
    noise_D           squared norm of the gradient of one sample, median over samples, sampled / probed, for the
                      gate's parameters and for all others. Advantages are +1 and -1 in turn: gradients have mean 0, and
                      their squared norms are their variance. A few samples are so large that a mean says nothing.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from functools import partial
from operator import itemgetter
from statistics import median
from typing import Any, cast

import torch
from torch import Tensor

from ouro_rl.bench.replay import earning
from ouro_rl.bench.timing import Say, ratios, spread, take_turns
from ouro_rl.bench.workload import Sizes
from ouro_rl.config.packaged_configs import config_folder
from ouro_rl.config.train import DataConfig, TrainConfig
from ouro_rl.core.engine_config import EngineConfig
from ouro_rl.core.rollout import Prompt, Rollout, RolloutRequest
from ouro_rl.core.sampling_params import DepthPolicy, SamplingParams, TokenFilters
from ouro_rl.core.seeds import sample_seed
from ouro_rl.core.summary_stats import mean_depth
from ouro_rl.data.prompts import load_prompts
from ouro_rl.model.checkpoint import load_policy
from ouro_rl.model.modeling_ouro import GATE_PARAMETERS, OuroForCausalLM
from ouro_rl.training.batch import Batch, apply, replay_inputs, replayed
from ouro_rl.training.objective.objective import Objective
from ouro_rl.training.token_logprobs import replay_batch
from rollout_workers.engine.engine import RolloutEngine

MODEL = "tiny_ouro"
DEPTHS = (1.6, 2.3)
"""Mean depths of the rollouts: after a quickstart, and before it."""
MICRO_BATCHES = 3
"""Times the batch of the engine's benchmarks: 192 samples, as in the quickstart."""
ROUNDS = 5
SEARCHES = 6
"""Steps of the bisection for the gate's bias, between -`FARTHEST` and `FARTHEST` of its own."""
FARTHEST = 4.0
SIDES = {
    "sampled": {},
    "probed": {"gate": {"probe_share": 1.0, "credit": "rao_blackwell"}, "trainer": {"credit": "rao_blackwell"}},
}
"""The settings of each side."""


@dataclass(frozen=True, kw_only=True)
class Workload:
    model: OuroForCausalLM
    prompts: list[Prompt]
    group: int
    tokens: int
    stop: int

    def sample(self) -> list[Rollout]:
        seeds = {
            prompt.index: [sample_seed(0, 1, prompt.index, i) for i in range(self.group)] for prompt in self.prompts
        }
        requests = [RolloutRequest(prompt=prompt, seeds=tuple(seeds[prompt.index])) for prompt in self.prompts]
        engine = RolloutEngine(self.model, EngineConfig(max_batch=self.group * len(self.prompts)))
        return engine.generate(requests, SamplingParams(max_new_tokens=self.tokens, stop_token_ids=(self.stop,)))

    def sample_at(self, depth: float) -> list[Rollout]:
        """Rollouts of about this mean depth; the gate's bias stays where that needs it."""
        bias = self.model.model.early_exit_gate.bias
        own, low, high = bias.item(), -FARTHEST, FARTHEST
        for _ in range(SEARCHES):
            middle = (low + high) / 2
            with torch.no_grad():
                bias.fill_(own + middle)
            rollouts = self.sample()
            low, high = (middle, high) if depth_of(rollouts) > depth else (low, middle)
        return rollouts


def depth_of(rollouts: list[Rollout]) -> float:
    return mean_depth(rollout.depths for rollout in rollouts)


def objective_of(side: str, loops: int) -> Objective:
    settings: dict[str, Any] = {"model": {"path": MODEL}, **SIDES[side]}
    return Objective(
        TrainConfig.model_validate({**settings, "trainer": {"steps": 1, **settings.get("trainer", {})}}), loops
    )


def loss_of(model: OuroForCausalLM, batch: Batch, side: str) -> Tensor:
    """The trainer's loss of a micro batch, before its backward pass."""
    loops, mask = model.config.total_ut_steps, batch["completion_mask"].bool()
    if side == "probed":
        batch = cast("Batch", {**batch, "probed": torch.ones(len(mask), dtype=torch.bool)})
    reading, gate_logits = replay_batch(
        model, batch, replay_inputs(batch, loops),
        max_loops=loops, depth_policy=DepthPolicy(), temperature=1.0, filters=TokenFilters(),
    )  # fmt: skip
    weights = torch.full((int(mask.sum()),), 1 / int(mask.sum()))
    micro_batch = replayed(batch, reading.logprobs, gate_logits, weights, reading.probes)
    return objective_of(side, loops).losses(micro_batch).total


def seconds_of(model: OuroForCausalLM, batch: Batch, side: str) -> float:
    """Forward pass, loss and backward pass."""
    model.zero_grad(set_to_none=True)
    started = time.perf_counter()
    loss_of(model, batch, side).backward()
    return time.perf_counter() - started


def gradient_sizes(model: OuroForCausalLM, batch: Batch, side: str) -> dict[str, float]:
    """Squared norm of the gradient of one sample, of the gate's parameters and of all others: medians over samples."""
    sizes: dict[str, list[float]] = {"gate": [], "others": []}
    for sample in range(len(batch["completion_mask"])):
        one = apply(batch, itemgetter(slice(sample, sample + 1)))
        model.zero_grad(set_to_none=True)
        loss_of(model, one, side).backward()
        found = dict.fromkeys(sizes, 0.0)
        for name, parameter in model.named_parameters():
            if parameter.grad is not None:
                found["gate" if name.endswith(GATE_PARAMETERS) else "others"] += parameter.grad.square().sum().item()
        for part, size in found.items():
            sizes[part].append(size)
    return {part: median(values) for part, values in sizes.items()}


def bench_probes(sizes: Sizes, say: Say) -> dict[str, Any]:
    """The section `probes` of the JSON; `ratios` by their top-level names."""
    model, tokenizer = load_policy(str(config_folder() / MODEL), torch.float32)
    count = max(1, sizes.batch * MICRO_BATCHES // sizes.group)
    prompts = load_prompts(DataConfig(limit=count), tokenizer, seed=0)
    work = Workload(
        model=model.train(), prompts=prompts, group=sizes.group, tokens=sizes.tokens, stop=tokenizer.eos_token_id
    )
    own = model.model.early_exit_gate.bias.item()
    found: dict[str, Any] = {}
    runs: dict[str, dict[str, Any]] = {}
    for depth in DEPTHS:
        with torch.no_grad():
            model.model.early_exit_gate.bias.fill_(own)
        rollouts = work.sample_at(depth)
        advantages = torch.ones(len(rollouts))
        advantages[1::2] = -1
        batch = earning(rollouts, advantages, model.config.total_ut_steps)
        seconds = take_turns({side: partial(seconds_of, model, batch, side) for side in SIDES}, ROUNDS, say)
        noise = {side: gradient_sizes(model, batch, side) for side in SIDES}
        found[f"probe_cost_{depth}"] = ratios(seconds["probed"], seconds["sampled"])
        runs[str(depth)] = {
            "mean_depth": depth_of(rollouts),
            "tokens": int(batch["completion_mask"].sum()),
            "seconds": {side: spread(values) for side, values in seconds.items()},
            "noise": {part: noise["sampled"][part] / noise["probed"][part] for part in noise["sampled"]},
        }
        less = ", ".join(f"{part} {value:.1f}x" for part, value in runs[str(depth)]["noise"].items())
        cost = found[f"probe_cost_{depth}"]["median"]
        say(f"mean depth {depth_of(rollouts):.2f}: {cost:.2f} times the time, smaller squared gradients: {less}")
    return {"ratios": found, "runs": runs}
