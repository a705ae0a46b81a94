"""`ouro-rl bench rollout`: tokens/s of the engine, beside everything that it should be compared with.

All runs have the same model, prompts (as many different ones as samples) and number of new tokens. By name:

    adaptive         loop-level continuous batching, depths drawn from the gate along the trace (mean 2.5), batch 64
    fixed            the same engine, every token 4 loops
    gate             depths drawn from a gate with random weights: they depend on the states, and the batch drains at the end; once
    *_small          at batch 16: `adaptive_small`, `fixed_small`, and
    lockstep_small   synchronous compaction (`choose_rows=lockstep`), along the trace
    no_exit_small    the adaptive path (gate asked, depths drawn) with a gate that never says leave
    generate         transformers' generate(), batch 64, greedy, 4 loops, on the same weights: in bf16, or cast to fp32 where a probe says that
                     this is the faster

Ratios of runs that took turns are taken round by round, and their median is reported. Of tokens/s while decoding (see `clock`), unless
they say whole call:

    adaptive_vs_generate       adaptive / generate
    continuous_share_of_bound  (adaptive / fixed) / (4 / mean depth): decode only, prefill is in neither
    continuous_vs_sync_b16     adaptive_small / lockstep_small
    no_exit_overhead           seconds a loop of no_exit_small / those of fixed_small - 1
    share_of_limit             seconds of adaptive's decode window at the limit / as measured; see `limit`
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import torch

from ouro_rl.bench.clock import (
    BY_GATE,
    Generated,
    Run,
    Say,
    part_of,
    ratios,
    run_engine,
    run_generate,
    spread,
    take_turns,
    warm_up,
)
from ouro_rl.bench.limit import Machine, measure_machine, window_costs, window_limit
from ouro_rl.bench.model import NEVER, Sizes, bench_model, make_requests, set_gate, trace_bias, trace_seeds
from ouro_rl.errors import RunError
from ouro_rl.model import OuroForCausalLM
from ouro_rl.types import ExitRule
from rollout_workers.engine import RolloutEngine, all_rows, lockstep

GATE_SPREAD = 1.0
"""Standard deviation of the random gate's logits."""
GENERATE_SHARE, BIG_SHARE = 0.3, 0.6
"""Of the seconds that are left when `generate()`, and then the large batch, has its turn."""
PROBE_SAMPLES, PROBE_TOKENS = 4, 2


class Contestants:
    """The runs, by name. One engine a batch size: its pools serve all of its runs."""

    def __init__(self, sizes: Sizes):
        self.sizes, self.model = sizes, bench_model(sizes)
        seeds = trace_seeds(self.model, sizes, sizes.batch, sizes.tokens)
        self.requests = make_requests(sizes, seeds, prompt=sizes.prompt)
        self.engines = {count: RolloutEngine(self.model, max_batch=count) for count in (sizes.batch, sizes.small_batch)}

    def engine_run(
        self, *, rule: ExitRule = BY_GATE, small: bool = False, sync: bool = False, bias: float | None = None,
        gate_spread: float = 0.0, tokens: int | None = None,
    ) -> Run:  # fmt: skip
        count = self.sizes.small_batch if small else self.sizes.batch
        set_gate(self.model, trace_bias(self.sizes) if bias is None else bias, spread=gate_spread)
        self.engines[count].choose_rows = lockstep if sync else all_rows
        return run_engine(self.engines[count], self.requests[:count], tokens or self.sizes.tokens, rule)

    def big(self) -> dict[str, Callable[[], Run]]:
        full = ExitRule(kind="fixed", value=self.sizes.loops)
        return {"adaptive": self.engine_run, "fixed": partial(self.engine_run, rule=full)}

    def small(self) -> dict[str, Callable[[], Run]]:
        full = ExitRule(kind="fixed", value=self.sizes.loops)
        return {
            "adaptive_small": partial(self.engine_run, small=True),
            "lockstep_small": partial(self.engine_run, small=True, sync=True),
            "fixed_small": partial(self.engine_run, small=True, rule=full),
            "no_exit_small": partial(self.engine_run, small=True, bias=NEVER),
        }

    def probe_generate(self) -> tuple[str, OuroForCausalLM, dict[str, float]]:
        """The precision in which `generate()` is the faster, the model in it, and what a short call took in each."""
        models = {"bf16": self.model, "fp32": bench_model(self.sizes).float()}
        seconds = {}
        for name, model in models.items():
            run_generate(model, self.requests[:1], 2)
            seconds[name] = run_generate(model, self.requests[:PROBE_SAMPLES], PROBE_TOKENS).seconds
        faster = min(seconds, key=seconds.__getitem__)
        return faster, models[faster], seconds

    def check_same_work(self, runs: Mapping[str, Sequence[Run]]) -> None:
        """Raise RunError unless all made the same number of tokens, and those along the trace ran its loops."""
        sizes = self.sizes
        full = ("fixed", "fixed_small", "no_exit_small")
        for name, rounds in runs.items():
            count = sizes.small_batch if name.endswith("_small") else sizes.batch
            wanted = None if name == "gate" else round((sizes.loops if name in full else sizes.mean_depth) * sizes.tokens) * count
            for run in rounds:
                recorded = sum(sum(rollout.depths) for rollout in run.rollouts)
                if run.tokens != count * sizes.tokens or run.loops != recorded or wanted not in (None, run.loops):
                    raise RunError(f"{name} ran {run.loops} loops for {run.tokens} tokens: not the work of the others")


def bench_rollout(sizes: Sizes, deadline: float, say: Say) -> dict[str, Any]:
    """The section `rollout` of the JSON, with `ratios` by their top-level names."""
    contestants = Contestants(sizes)
    say("measuring the machine")
    machine = measure_machine(sizes)
    say("warming up")
    warm_up(contestants.engines[sizes.small_batch], contestants.requests[: sizes.small_batch])
    say("gate")
    runs = {"gate": [contestants.engine_run(gate_spread=GATE_SPREAD)]}  # grows the pools
    say("probing generate()")
    precision, model, probe = contestants.probe_generate()
    generate = {"generate": partial(run_generate, model, contestants.requests, sizes.tokens)}
    generated = take_turns(generate, part_of(deadline, GENERATE_SHARE), say, most=2)
    runs |= take_turns(contestants.big(), part_of(deadline, BIG_SHARE), say)
    runs |= take_turns(contestants.small(), deadline, say)
    machine = machine.better(measure_machine(sizes))
    contestants.check_same_work(runs)
    return {
        "ratios": engine_ratios(sizes, runs, machine) | generate_ratios(runs["adaptive"], generated["generate"]),
        "limit": limit_figures(sizes, runs["adaptive"][0], machine),
        "runs": {name: figures(rounds) for name, rounds in (runs | generated).items()},
        "generate": {"precision": precision, "probe_seconds": probe, "probe_samples": PROBE_SAMPLES, "probe_tokens": PROBE_TOKENS},
        "engine": contestants.model.model.row_ops(torch.bfloat16)[1],
    }


def engine_ratios(sizes: Sizes, runs: Mapping[str, Sequence[Run]], machine: Machine) -> dict[str, dict]:
    """Spreads by name."""

    def speed(run: Run) -> float:
        return run.decode_tokens_per_second

    def loop_seconds(run: Run) -> float:
        return run.window_seconds / run.window_loops

    # (speed a / speed f) / (4 / depth a), as the fixed run's depth is 4.
    share = ratios(runs, "adaptive", "fixed", lambda run: speed(run) * run.mean_depth)
    overhead = ratios(runs, "no_exit_small", "fixed_small", loop_seconds)
    return {
        "continuous_share_of_bound": share,
        "continuous_vs_sync_b16": ratios(runs, "adaptive_small", "lockstep_small", speed),
        "no_exit_overhead": {name: value - (name != "rounds") for name, value in overhead.items()},
        "share_of_limit": spread([window_limit(sizes, run, machine) / run.window_seconds for run in runs["adaptive"]]),
    }


def generate_ratios(ours: Sequence[Run], theirs: Sequence[Generated]) -> dict[str, dict]:
    """Median over median, as the two did not take turns; the spread is of the extremes."""
    found = {}
    for name, figure in (("", "decode_tokens_per_second"), ("_whole_call", "tokens_per_second")):
        above, below = (spread([getattr(run, figure) for run in runs]) for runs in (ours, theirs))
        found[f"adaptive_vs_generate{name}"] = {
            "median": above["median"] / below["median"],
            "least": above["least"] / below["greatest"],
            "greatest": above["greatest"] / below["least"],
            "rounds": min(len(ours), len(theirs)),
        }
    return found


def limit_figures(sizes: Sizes, run: Run, machine: Machine) -> dict[str, Any]:
    """What the limit was worked out from."""
    costs = window_costs(sizes, run)
    limit = window_limit(sizes, run, machine)
    return {
        "read_bytes_per_second": machine.bytes_per_second,
        "read_by": machine.how_read,
        "gemm_flop_per_second": machine.flop_per_second,
        "gemm_by": machine.how_multiplied,
        "passes": len(costs),
        "mean_pass_bytes": sum(cost.bytes for cost in costs) / len(costs),
        "mean_pass_flop": sum(cost.flop for cost in costs) / len(costs),
        "tokens_per_second": run.window_loops / run.mean_depth / limit,
    }


def figures(rounds: Sequence[Run] | Sequence[Generated]) -> dict[str, Any]:
    """Raw figures of one contestant."""
    first = rounds[0]
    found: dict[str, Any] = {
        "seconds": [run.seconds for run in rounds],
        "tokens": first.tokens,
        "tokens_per_second": spread([run.tokens_per_second for run in rounds]),
        "decode_tokens_per_second": spread([run.decode_tokens_per_second for run in rounds]),
    }
    if isinstance(first, Run):
        found |= {
            "loops": first.loops,
            "prompt_loops": first.prompt_loops,
            "passes": first.passes,
            "mean_depth": first.mean_depth,
            "pass_seconds": spread([run.window_seconds / run.window_passes for run in rounds]),
        }
    return found
