"""`ouro-rl bench group`: one group of 16 samples of one prompt of 256 tokens, 64 new tokens each, along the trace.

    group_speedup   seconds of the whole call if every sample computes the prompt (`Unshared`) / with a shared prompt

With a shared prompt, the group computes, stores and reads the prompt once. Both sides run together (see `timing`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ouro_rl.bench.timing import Run, Say, TimedCall, ratios, run_together, spread, warm_up
from ouro_rl.bench.workload import Sizes, bench_model, make_requests, trace_seeds
from ouro_rl.core.engine_config import EngineConfig
from ouro_rl.core.errors import RunError
from rollout_workers.engine.engine import RolloutEngine
from rollout_workers.engine.scheduling.policy import SchedulingPolicy


class Unshared(SchedulingPolicy):
    """Every sample computes and stores its whole prompt."""

    shares_prefixes = False


def bench_group(sizes: Sizes, say: Say) -> dict[str, Any]:
    """The section `group` of the JSON; `ratios` by their top-level names."""
    model = bench_model(sizes)
    seeds = trace_seeds(model, sizes, sizes.group, sizes.tokens)
    requests = make_requests(sizes, seeds, prompt=sizes.group_prompt, group=sizes.group)
    config = EngineConfig(max_batch=sizes.group)
    engines = {
        "shared": RolloutEngine(model, config),
        "unshared": RolloutEngine(model, config, policy=Unshared()),
    }
    say("warming up")
    for engine in engines.values():
        warm_up(engine, requests)
    say("running both")
    runs = run_together({name: TimedCall(engine, requests, sizes.tokens) for name, engine in engines.items()})
    check_same_tokens(runs)
    shared, unshared = runs["shared"], runs["unshared"]
    return {
        "ratios": {"group_speedup": spread([unshared.last.seconds / shared.last.seconds])},
        "decode_speedup": ratios(shared.slice_speeds, unshared.slice_speeds),
        "runs": {
            name: {
                "seconds": run.last.seconds,
                "tokens_per_second": run.tokens_per_second,
                "decode_tokens_per_second": run.decode_tokens_per_second,
                "peak_bytes": run.peak_bytes,
                "loops": run.last.loops,
                "prompt_loops": run.last.prompt_loops,
                "tokens": run.last.tokens,
            }
            for name, run in runs.items()
        },
    }


def check_same_tokens(runs: Mapping[str, Run]) -> None:
    """Raise RunError unless both sides sampled the same numbers of tokens and the same depths."""
    shared, unshared = (
        [(len(rollout.completion_ids), rollout.depths) for rollout in runs[name].rollouts]
        for name in ("shared", "unshared")
    )
    if shared != unshared:
        raise RunError("sharing the prompt changed the depths of the samples: the two runs did not do the same work")
