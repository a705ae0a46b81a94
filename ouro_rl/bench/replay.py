"""`ouro-rl bench replay`: the trainer's forward and backward pass over one group, at the depths of a rollout.

A micro batch as in GRPO: `group` samples of one prompt of 64 tokens, sampled by the engine, collated and replayed with
the functions of the trainer's loss: fp32 master weights computing in bf16, token loss and gate loss. The prompt runs at
full depth, once per group. The two sides take turns.

    replay_time_ratio   seconds of forward + backward with completions of mean depth 2.5 / of depth 4, round by round

`row_ratio` is the ratio of rows over all loops. The cost of the LM head and the embedding does not depend on depth
(nor, without the C kernels, does that of attention).
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ouro_rl.bench.timing import BY_GATE, Say, ratios, run_engine, spread, take_turns
from ouro_rl.bench.workload import Sizes, bench_model, make_requests, trace_seeds
from ouro_rl.config.train import TrainConfig
from ouro_rl.core.engine_config import EngineConfig
from ouro_rl.core.rollout import Rollout
from ouro_rl.core.sampling_params import DepthPolicy, ExitRule, TokenFilters
from ouro_rl.model.modeling_ouro import OuroForCausalLM
from ouro_rl.model.policy.exit_gate import decision_mask
from ouro_rl.training.batch import Batch, apply, collate, depth_matrix, replay_inputs, replayed
from ouro_rl.training.objective.objective import Objective
from ouro_rl.training.objective.records import Credits
from ouro_rl.training.token_logprobs import replay_batch
from rollout_workers.engine.engine import RolloutEngine

ROUNDS = 3


@dataclass(frozen=True, kw_only=True)
class Timed:
    """One forward and backward pass."""

    forward_seconds: float
    backward_seconds: float
    tokens: int
    loops: int
    """Rows summed over all loops, including the prompt."""
    gap: float
    """Largest difference between a token log-prob and the engine's, in nats."""

    @property
    def seconds(self) -> float:
        return self.forward_seconds + self.backward_seconds


def trainer_model(sizes: Sizes) -> OuroForCausalLM:
    """The benchmark's model as in the trainer: fp32 master weights with bf16 forward passes."""
    model = bench_model(sizes).float().train()
    model.model.compute_dtype = torch.bfloat16
    return model


def group_batch(sizes: Sizes, rule: ExitRule = BY_GATE) -> Batch:
    """A group sampled by the engine and collated."""
    model = bench_model(sizes)
    seeds = trace_seeds(model, sizes, sizes.group, sizes.tokens)
    requests = make_requests(sizes, seeds, prompt=sizes.prompt, group=sizes.group)
    run = run_engine(RolloutEngine(model, EngineConfig(max_batch=sizes.group)), requests, sizes.tokens, rule)
    return earning(run.rollouts, torch.linspace(-1, 1, sizes.group), sizes.loops)


def earning(rollouts: Sequence[Rollout], advantages: Tensor, loops: int) -> Batch:
    """A batch of n rollouts that earned these `advantages` [n]; loops are free."""
    depths = depth_matrix(rollouts)
    by_token, count = advantages.unsqueeze(1).expand(depths.shape), len(rollouts)
    credits = Credits(
        advantages=by_token,
        gate_returns=by_token.unsqueeze(2) * decision_mask(loops, depths).permute(1, 2, 0),
        gate_advantages=by_token,
        loop_prices=torch.zeros(depths.shape),
        stay_costs=torch.zeros(count, loops - 1),
        hazards=torch.full((count, loops - 1), 0.5),
        by_gate=torch.ones(count, dtype=torch.bool),
        of_rollouts=advantages,
    )
    return collate(rollouts, credits, 0)


def replay_once(model: OuroForCausalLM, batch: Batch, loops: int) -> Timed:
    """Forward pass, loss and backward pass, as in the trainer."""
    model.zero_grad(set_to_none=True)
    started = time.perf_counter()
    inputs = replay_inputs(batch, loops)
    mask = batch["completion_mask"].bool()
    reading, gate_logits = replay_batch(
        model, batch, inputs, max_loops=loops, depth_policy=DepthPolicy(), temperature=1.0, filters=TokenFilters()
    )
    weights = torch.full_like(reading.logprobs, 1 / len(reading.logprobs))
    config = TrainConfig.model_validate({"model": {"path": "benchmark"}, "trainer": {"steps": 1}})
    loss = Objective(config, loops).losses(replayed(batch, reading.logprobs, gate_logits, weights)).total
    between = time.perf_counter()
    loss.backward()
    ended = time.perf_counter()
    places = torch.arange(inputs.owners.numel()).view_as(inputs.owners)
    return Timed(
        forward_seconds=between - started,
        backward_seconds=ended - between,
        tokens=int(mask.sum()),
        loops=int(inputs.depths[inputs.owners == places].sum()),
        gap=(reading.logprobs.detach() - batch["sampler_logprobs"][mask]).abs().max().item(),
    )


def first_samples(batch: Batch, count: int = 2) -> Batch:
    """A small part of a batch, enough to pack weights and compile kernels."""
    return apply(batch, lambda tensor: tensor[:count])


def bench_replay(sizes: Sizes, say: Say) -> dict[str, Any]:
    """The section `replay` of the JSON; `ratios` by their top-level names."""
    say("sampling the rollouts to replay")
    adaptive, full = group_batch(sizes), group_batch(sizes, ExitRule(kind="fixed", value=sizes.loops))
    model = trainer_model(sizes)
    say("warming up")
    replay_once(model, first_samples(adaptive), sizes.loops)
    rounds = take_turns(
        {
            "mean_depth": lambda: replay_once(model, adaptive, sizes.loops),
            "full_depth": lambda: replay_once(model, full, sizes.loops),
        },
        ROUNDS, say,
    )  # fmt: skip
    return {
        "ratios": {
            "replay_time_ratio": ratios(
                *([run.seconds for run in rounds[name]] for name in ("mean_depth", "full_depth"))
            )
        },
        "row_ratio": rounds["mean_depth"][0].loops / rounds["full_depth"][0].loops,
        "runs": {name: figures(runs) for name, runs in rounds.items()},
    }


def figures(runs: list[Timed]) -> dict[str, Any]:
    """Raw figures of one side."""
    return {
        "seconds": spread([run.seconds for run in runs]),
        "forward_seconds": spread([run.forward_seconds for run in runs]),
        "backward_seconds": spread([run.backward_seconds for run in runs]),
        "tokens": runs[0].tokens,
        "loops": runs[0].loops,
        "largest_logprob_gap": max(run.gap for run in runs),
    }
