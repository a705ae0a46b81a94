"""`ouro-rl bench dispatch`: how busy two rollout actors are when the long answers come first.

Real Ray actors, given work as in training, whose engine sleeps: a pass takes time in proportion to its rows, as on a
CPU, so that no core is needed for it. Half of the prompts, all of them in one half of the data, have answers 8 times as
long as the others'.

    utilization_dealt   busy over wall, mean of the actors: every actor gets its share of the groups at the start
    utilization         the same, when work is given bit by bit to whoever is free
    driver_share        the driver's CPU time over wall in the second case
"""

from __future__ import annotations

import time
from collections.abc import Collection, Sequence
from typing import Any

import torch

from ouro_rl.bench.sleeping_actor import SleepingActor
from ouro_rl.bench.timing import Say
from ouro_rl.bench.workload import Sizes
from ouro_rl.core.engine_config import EngineConfig
from ouro_rl.core.rollout import Prompt, RolloutRequest
from ouro_rl.core.sampling_params import SamplingParams
from rollout_workers.fleet.actor_pool import ActorPool
from rollout_workers.fleet.ledger import Ledger, Policy
from rollout_workers.fleet.settings import FleetSettings
from rollout_workers.fleet.units import Unit

WORKERS, GROUPS, GROUP = 2, 24, 8
LONG, SHORT = 64, 8
"""Tokens per answer."""


def bench_dispatch(_: Sizes, say: Say) -> dict[str, Any]:
    """The section `dispatch` of the JSON; `ratios` by their top-level names."""
    lengths = [LONG if group < GROUPS // 2 else SHORT for group in range(GROUPS)]
    found = {}
    for name, pool_class in (("utilization_dealt", DealtPool), ("utilization", ActorPool)):
        say(name)
        found[name] = _measure(pool_class, lengths)
    return {
        "ratios": {
            name: {"median": run["busy"], "least": min(run["workers"]), "greatest": max(run["workers"]), "count": 2}
            for name, run in found.items()
        },
        "lengths": lengths,
        **found,
    }


def _measure(pool_class: type[ActorPool], lengths: Sequence[int]) -> dict[str, Any]:
    requests = [
        RolloutRequest(prompt=Prompt(index=i, token_ids=(length,)), seeds=tuple(range(GROUP)))
        for i, length in enumerate(lengths)
    ]
    engine, settings = EngineConfig(max_batch=GROUPS * GROUP, device="cpu"), FleetSettings(cpus=0.25)
    with pool_class(WORKERS, {}, engine, settings, actor=SleepingActor) as pool:
        pool.publish({"weight": torch.zeros(1)}, 0)
        started, used = time.monotonic(), time.process_time()
        pool.rollout(requests, SamplingParams(max_new_tokens=max(lengths)))
        seconds, driver = time.monotonic() - started, time.process_time() - used
        busy = pool.utilization(seconds)
    return {
        "busy": sum(busy) / len(busy),
        "workers": busy,
        "seconds": round(seconds, 2),
        "driver_share": round(driver / seconds, 4),
    }


class DealtPool(ActorPool):
    """Every worker gets its share of the groups at the start, as one unit."""

    def plan(self, sizes: Sequence[int], skipped: Collection[int]) -> Ledger:
        workers, total = len(self.crew), sum(sizes)
        owners = [group for group, size in enumerate(sizes) for _ in range(size)]
        shares = [range(worker * total // workers, (worker + 1) * total // workers) for worker in range(workers)]
        units = [Unit(places=tuple(share), requests=tuple(owners[place] for place in share)) for share in shares]
        return Ledger(units, workers, Policy(most_samples=total, held_back=0.0, tries=self.settings.tries))
