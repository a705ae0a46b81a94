"""`ouro-rl bench rollout`: tokens/s of the engine, beside everything that it should be compared with.

All runs have the same model, prompts (`batch` different ones) and number of tokens. By name:

    adaptive      loop-level continuous batching, depths drawn from the gate along the trace (mean 2.5)
    fixed         the same engine, every token 4 loops
    no_exit       the adaptive path (gate asked, depths drawn) with a gate that never says leave
    lockstep      synchronous compaction (`choose_rows=lockstep`), along the trace
    *_small       at batch 16
    gate          depths drawn from a gate with random weights: they depend on the states, and the batch drains at the end
    generate      transformers' generate() on the same weights, greedy, 4 loops; `generate_fp32`: the weights cast to fp32

Ratios are taken round by round and their median is reported. Of tokens/s while decoding (see `clock`), unless they say whole call:

    adaptive_vs_generate       adaptive / the faster one of `generate` and `generate_fp32`
    continuous_share_of_bound  (adaptive / fixed) / (4 / mean depth): decode only, prefill is in neither
    continuous_vs_sync_b16     adaptive_small / lockstep_small
    no_exit_overhead           seconds a loop of no_exit / those of fixed - 1
    share_of_limit             seconds of adaptive's decode window at the limit / as measured; see `limit`
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch

from ouro_rl.bench.clock import BY_GATE, Generated, Run, Say, ratios, run_engine, run_generate, spread, take_turns
from ouro_rl.bench.limit import Machine, measure_machine, window_costs, window_limit
from ouro_rl.bench.model import NEVER, Sizes, bench_model, make_requests, set_gate, trace_bias, trace_seeds
from ouro_rl.errors import RunError
from ouro_rl.model import OuroForCausalLM
from ouro_rl.types import ExitRule
from rollout_workers.engine import RolloutEngine, all_rows, lockstep

GATE_SPREAD = 1.0
"""Standard deviation of the random gate's logits."""
GENERATE_SHARE = 0.35
"""Of the seconds: `generate()` is slow."""


class Contestants:
    """The runs, by name. One engine a batch size: its pools serve all of its runs."""

    def __init__(self, sizes: Sizes):
        self.sizes, self.model = sizes, bench_model(sizes)
        self.model_fp32 = bench_model(sizes).float()
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

    def generate_run(self, model: OuroForCausalLM, tokens: int | None = None) -> Generated:
        return run_generate(model, self.requests, tokens or self.sizes.tokens)

    def of_the_engine(self) -> dict[str, partial[Run]]:
        full = ExitRule(kind="fixed", value=self.sizes.loops)
        return {
            "adaptive": partial(self.engine_run),
            "fixed": partial(self.engine_run, rule=full),
            "no_exit": partial(self.engine_run, bias=NEVER),
            "adaptive_small": partial(self.engine_run, small=True),
            "lockstep_small": partial(self.engine_run, small=True, sync=True),
            "gate": partial(self.engine_run, gate_spread=GATE_SPREAD),
            "lockstep": partial(self.engine_run, sync=True),
        }

    def of_generate(self) -> dict[str, partial[Generated]]:
        return {
            "generate": partial(self.generate_run, self.model),
            "generate_fp32": partial(self.generate_run, self.model_fp32),
        }

    def warm_up(self, say: Say) -> None:
        """Compile, pack weights, grow the pools to the size that the longest run needs and touch them."""
        say("warming up")
        for small in (False, True):
            self.engine_run(rule=ExitRule(kind="fixed", value=self.sizes.loops), small=small)
        for run in self.of_generate().values():
            run(2)

    def check_same_work(self, runs: dict[str, list[Run]]) -> None:
        """Raise RunError unless all made the same number of tokens, and those along the trace ran its loops, token by token."""
        sizes = self.sizes
        for name, rounds in runs.items():
            count = sizes.small_batch if name.endswith("_small") else sizes.batch
            mean = {"fixed": sizes.loops, "no_exit": sizes.loops, "gate": None}.get(name, sizes.mean_depth)
            for run in rounds:
                loops = None if mean is None else round(mean * sizes.tokens) * count
                recorded = sum(sum(rollout.depths) for rollout in run.rollouts)
                if run.tokens != count * sizes.tokens or run.loops != recorded or loops not in (None, run.loops):
                    raise RunError(f"{name} ran {run.loops} loops for {run.tokens} tokens: not the work of the others")


def bench_rollout(sizes: Sizes, seconds: float, say: Say) -> dict[str, Any]:
    """The section `rollout` of the JSON, with `ratios` by their top-level names."""
    contestants = Contestants(sizes)
    machine = measure_machine(sizes)
    contestants.warm_up(say)
    generated = take_turns(contestants.of_generate(), seconds * GENERATE_SHARE, say, most=3)
    runs = take_turns(contestants.of_the_engine(), seconds * (1 - GENERATE_SHARE), say)
    machine = machine.better(measure_machine(sizes))
    contestants.check_same_work(runs)
    found = engine_ratios(sizes, runs, machine) | generate_ratios(runs, generated)
    return {
        "ratios": found,
        "limit": limit_figures(sizes, runs["adaptive"][0], machine),
        "runs": {name: figures(rounds) for name, rounds in (runs | generated).items()},
        "engine": contestants.model.model.row_ops(torch.bfloat16)[1],
    }


def engine_ratios(sizes: Sizes, runs: dict[str, list[Run]], machine: Machine) -> dict[str, dict]:
    """Spreads by name."""

    def speed(run: Run) -> float:
        return run.decode_tokens_per_second

    def loop_seconds(run: Run) -> float:
        return run.window_seconds / run.window_loops

    # (speed a / speed f) / (4 / depth a), as the fixed run's depth is 4.
    share = ratios(runs, "adaptive", "fixed", lambda run: speed(run) * run.mean_depth)
    overhead = ratios(runs, "no_exit", "fixed", loop_seconds)
    return {
        "continuous_share_of_bound": share,
        "continuous_vs_sync_b16": ratios(runs, "adaptive_small", "lockstep_small", speed),
        "continuous_vs_sync": ratios(runs, "adaptive", "lockstep", speed),
        "no_exit_overhead": {
            name: value - 1 if name != "rounds" else value for name, value in overhead.items()
        },
        "share_of_limit": spread([window_limit(sizes, run, machine) / run.window_seconds for run in runs["adaptive"]]),
    }


def generate_ratios(runs: dict[str, list[Run]], generated: dict[str, list[Generated]]) -> dict[str, dict]:
    """Medians over medians, as the two were not in turns; the spread is of the extremes."""
    found = {}
    for name, figure in (("", "decode_tokens_per_second"), ("_whole_call", "tokens_per_second")):
        ours = spread([getattr(run, figure) for run in runs["adaptive"]])
        for other, rounds in generated.items():
            theirs = spread([getattr(run, figure) for run in rounds])
            found[f"adaptive_vs_{other}{name}" if other != "generate" else f"adaptive_vs_generate_bf16{name}"] = {
                "median": ours["median"] / theirs["median"],
                "least": ours["least"] / theirs["greatest"],
                "greatest": ours["greatest"] / theirs["least"],
                "rounds": theirs["rounds"],
            }
        both = [found[f"adaptive_vs_generate_{precision}{name}"] for precision in ("bf16", "fp32")]
        found[f"adaptive_vs_generate{name}"] = min(both, key=lambda ratio: ratio["median"])
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


def figures(rounds: list[Run] | list[Generated]) -> dict[str, Any]:
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
