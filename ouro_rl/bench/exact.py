"""The cost of `exact` (part of `ouro-rl bench replay`): batch-invariant arithmetic in rollout and replay.

The relevant part of a training step: two groups of 16 samples of 32 tokens, sampled along the trace, and their replay.
The replay is timed on one group and counted once per group of the batch.

    exact_cost   (rollout + replay seconds with `rollout.exact` true) / (the same with false) - 1

So rollout and replay are weighted by the time they take. The rollouts run together (see `timing`); the replays take
turns. If the kernels are batch-invariant in any case (`one_path`), both sides run the same code and the ratio is
measurement noise.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from statistics import median
from typing import Any

import torch

from ouro_rl.bench.replay import first_samples, group_batch, replay_once, trainer_model
from ouro_rl.bench.timing import Say, TimedCall, excess, ratios, run_together, spread, take_turns, warm_up
from ouro_rl.bench.workload import Sizes, bench_model, make_requests, trace_seeds
from ouro_rl.core.engine_config import EngineConfig
from ouro_rl.kernels.ops import KernelOps
from ouro_rl.kernels.processor import has_amx
from ouro_rl.model.modeling_ouro import OuroForCausalLM
from ouro_rl.training.batch import Batch
from rollout_workers.engine.engine import RolloutEngine

GROUPS = 2
ROUNDS = 2
"""Rounds of the replays."""


class Side:
    """Engine and trainer with `exact` on or off."""

    def __init__(self, sizes: Sizes, exact: bool):
        self.sizes = sizes
        self.model, self.trained = bench_model(sizes), trainer_model(sizes)
        self.model.model.batch_invariant = self.trained.model.batch_invariant = exact
        self.engine = RolloutEngine(self.model, EngineConfig(max_batch=sizes.batch))
        seeds = trace_seeds(self.model, sizes, sizes.batch, sizes.tokens)
        self.requests = make_requests(sizes, seeds, prompt=sizes.prompt, group=sizes.group)

    def warm_up(self, batch: Batch) -> None:
        """Compile kernels and pack weights."""
        warm_up(self.engine, self.requests)
        replay_once(self.trained, first_samples(batch), self.sizes.loops)


def is_one_path(model: OuroForCausalLM) -> bool:
    """Whether the code path is the same with `exact` and without: with the C kernels, unless oneDNN computes bf16
    products by AMX."""
    return isinstance(model.model.row_ops(torch.bfloat16)[0], KernelOps) and not has_amx()


def bench_exact(sizes: Sizes, say: Say) -> dict[str, Any]:
    """The section `exact` of the JSON; `ratios` by their top-level names."""
    sizes = replace(sizes, batch=GROUPS * sizes.group, tokens=sizes.curve_tokens)
    batch = group_batch(sizes)
    sides = {"exact": Side(sizes, True), "plain": Side(sizes, False)}
    say("warming up")
    for side in sides.values():
        side.warm_up(batch)
    say("rollouts")
    runs = run_together({name: TimedCall(side.engine, side.requests, sizes.tokens) for name, side in sides.items()})
    rounds = take_turns(
        {name: partial(replay_once, side.trained, batch, sizes.loops) for name, side in sides.items()}, ROUNDS, say
    )
    groups = runs["exact"].last.tokens / rounds["exact"][0].tokens  # replays per rollout
    replays = {name: [groups * replayed.seconds for replayed in of] for name, of in rounds.items()}
    steps = {name: run.last.seconds + median(replays[name]) for name, run in runs.items()}
    return {
        "ratios": {"exact_cost": excess(spread([steps["exact"] / steps["plain"]]))},
        "rollout_cost": excess(ratios(runs["plain"].slice_speeds, runs["exact"].slice_speeds)),
        "replay_cost": excess(ratios(replays["exact"], replays["plain"])),
        "one_path": is_one_path(sides["exact"].model),
        "runs": {
            name: {
                "rollout_seconds": runs[name].last.seconds,
                "replay_seconds": spread(replays[name]),
                "largest_logprob_gap": max(replayed.gap for replayed in rounds[name]),
            }
            for name in sides
        },
    }
