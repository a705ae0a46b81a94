"""`ouro-rl bench group`: one group of 16 samples of one prompt of 256 tokens, 64 new tokens each, along the trace.

    group_speedup   seconds of the whole call with `share_prompts=False` / with the prompt shared, round by round

Sharing computes the prompt once, keeps it once, and lets attention read it once for the group.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from ouro_rl.bench.clock import Run, Say, ratios, run_engine, spread, take_turns, warm_up
from ouro_rl.bench.model import Sizes, bench_model, make_requests, trace_seeds
from ouro_rl.errors import RunError
from rollout_workers.engine import RolloutEngine


def bench_group(sizes: Sizes, deadline: float, say: Say) -> dict[str, Any]:
    """The section `group` of the JSON, with `ratios` by their top-level names."""
    model = bench_model(sizes)
    seeds = trace_seeds(model, sizes, sizes.group, sizes.tokens)
    requests = make_requests(sizes, seeds, prompt=sizes.group_prompt, group=sizes.group)
    engines = {
        "shared": RolloutEngine(model, max_batch=sizes.group),
        "unshared": RolloutEngine(model, max_batch=sizes.group, share_prompts=False),
    }
    runners = {name: partial(run_engine, engine, requests, sizes.tokens) for name, engine in engines.items()}
    say("warming up")
    for engine in engines.values():
        warm_up(engine, requests)
    rounds = take_turns(runners, deadline, say, most=7)
    check_same_tokens(rounds)
    return {
        "ratios": {"group_speedup": ratios(rounds, "unshared", "shared", lambda run: run.seconds)},
        "decode_speedup": ratios(rounds, "unshared", "shared", lambda run: run.window_seconds / run.window_loops),
        "runs": {
            name: {
                "seconds": spread([run.seconds for run in runs]),
                "tokens_per_second": spread([run.tokens_per_second for run in runs]),
                "decode_tokens_per_second": spread([run.decode_tokens_per_second for run in runs]),
                "peak_bytes": runs[0].peak_bytes,
                "loops": runs[0].loops,
                "prompt_loops": runs[0].prompt_loops,
                "tokens": runs[0].tokens,
            }
            for name, runs in rounds.items()
        },
    }


def check_same_tokens(rounds: dict[str, list[Run]]) -> None:
    """Raise RunError unless both sides sampled the same depths for as many tokens."""
    shared, unshared = (
        [(len(rollout.completion_ids), rollout.depths) for rollout in rounds[name][0].rollouts]
        for name in ("shared", "unshared")
    )
    if shared != unshared:
        raise RunError("sharing the prompt changed the depths of the samples: the two runs did not do the same work")
