"""What `exact` costs (part of `ouro-rl bench replay`): a row's result may not depend on its company, on both sides.

One step of training, as far as it depends on this: a batch of 64 samples in groups of 16, drawn along the trace, and its replay. The
replay is timed on one group and counted as often as groups make up the batch.

    exact_cost   (rollout + replay seconds with `model.model.exact` true) / (the same with false) - 1, round by round

So rollout and replay weigh what they take. Where the kernels compute each row by itself whatever is asked (see `paths`), both sides
are one code, and the cost that is left to see is in its choice, not in the flag.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import torch

from ouro_rl.bench.clock import Run, Say, ratios, run_engine, spread, take_turns, warm_up
from ouro_rl.bench.model import Sizes, bench_model, make_requests, trace_seeds
from ouro_rl.bench.replay import Replayed, first_samples, group_batch, replay_once, trainer_model
from rollout_workers.engine import RolloutEngine


@dataclass(frozen=True, kw_only=True)
class Step:
    """Rollout and replay of one batch."""

    rollout: Run
    replay: Replayed
    groups: float
    """How many such replays the rollout's tokens make."""

    @property
    def replay_seconds(self) -> float:
        return self.groups * self.replay.seconds

    @property
    def seconds(self) -> float:
        return self.rollout.seconds + self.replay_seconds


class Side:
    """Engine and trainer with `exact` on or off."""

    def __init__(self, sizes: Sizes, exact: bool):
        self.sizes = sizes
        self.model, self.trained = bench_model(sizes), trainer_model(sizes)
        self.model.model.exact = self.trained.model.exact = exact
        self.engine = RolloutEngine(self.model, max_batch=sizes.batch)
        seeds = trace_seeds(self.model, sizes, sizes.batch, sizes.tokens)
        self.requests = make_requests(sizes, seeds, prompt=sizes.prompt, group=sizes.group)

    def step(self, batch: dict[str, torch.Tensor]) -> Step:
        rollout = run_engine(self.engine, self.requests, self.sizes.tokens)
        replay = replay_once(self.trained, batch, self.sizes.loops)
        return Step(rollout=rollout, replay=replay, groups=rollout.tokens / replay.tokens)

    def warm_up(self, batch: dict[str, torch.Tensor]) -> None:
        """Pack weights, compile, grow the pools."""
        warm_up(self.engine, self.requests)
        replay_once(self.trained, first_samples(batch), self.sizes.loops)


def bench_exact(sizes: Sizes, deadline: float, say: Say) -> dict[str, Any]:
    """The section `exact` of the JSON, with `ratios` by their top-level names."""
    batch = group_batch(sizes)
    sides = {"exact": Side(sizes, True), "plain": Side(sizes, False)}
    say("warming up")
    for side in sides.values():
        side.warm_up(batch)
    rounds = take_turns({name: partial(side.step, batch) for name, side in sides.items()}, deadline, say)
    return {
        "ratios": {"exact_cost": excess(rounds, lambda step: step.seconds)},
        "rollout_cost": excess(rounds, lambda step: step.rollout.seconds),
        "replay_cost": excess(rounds, lambda step: step.replay.seconds),
        "paths": {name: type(side.model.model.row_ops(torch.bfloat16)[0]).__name__ for name, side in sides.items()},
        "runs": {
            name: {
                "rollout_seconds": spread([step.rollout.seconds for step in steps]),
                "replay_seconds": spread([step.replay_seconds for step in steps]),
                "largest_logprob_gap": max(step.replay.gap for step in steps),
            }
            for name, steps in rounds.items()
        },
    }


def excess(rounds: dict[str, list[Step]], figure) -> dict[str, Any]:
    """The spread of exact / plain - 1."""
    found = ratios(rounds, "exact", "plain", figure)
    return {name: value - 1 if name != "rounds" else value for name, value in found.items()}
