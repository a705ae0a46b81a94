"""`ouro-rl bench rollout`: tokens/s of the engine, compared with its baselines.

All runs have the same model, prompts (a different one for every sample) and number of new tokens. By name:

    adaptive         loop-level continuous batching, depths sampled from the gate along the trace (mean 2.5), batch 64
    fixed            the same engine, 4 loops for every token
    generate         transformers' generate(), batch 64, greedy, 4 loops, on the same weights: in bf16, or cast to fp32
                     if a probe finds that faster
    generate_bf16_small   generate() at batch 16 in bf16, as users call it, for the first quarter of the tokens; if bf16
                     is the faster dtype, `generate` uses it too
    *_small          at batch 16: `adaptive_small`, `fixed_small`, and
    lockstep_small   synchronous compaction (`Lockstep`), along the trace
    no_exit_small    the adaptive path (gate evaluated, depths sampled) with a gate that never exits
    gate_small       depths sampled from a gate with random weights: they depend on the states, and the batch drains
                     towards the end

The first three run together, and so do the others (see `timing`). Ratios are of tokens/s while decoding, slice by
slice:

    adaptive_vs_generate       adaptive / generate; over the whole call, including prefill:
                               `adaptive_vs_generate_whole_call`; adaptive_small / generate_bf16_small, both over that
                               quarter: `adaptive_vs_generate_bf16_b16`
    continuous_share_of_bound  (adaptive / fixed) / (4 / mean depth)
    continuous_vs_sync_b16     adaptive_small / lockstep_small
    no_exit_overhead           seconds per loop of no_exit_small / those of fixed_small - 1
    share_of_roofline          seconds of adaptive's decode window at the roofline / as measured; see `roofline`
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from functools import partial, reduce
from typing import Any

import torch
from torch import Tensor

from ouro_rl.bench.roofline import Machine, Prober, slice_rooflines, window_costs
from ouro_rl.bench.timing import (
    BY_GATE,
    Generated,
    Run,
    Say,
    TimedCall,
    excess,
    keep_pace,
    ratios,
    run_generate,
    run_together,
    spread,
    warm_up,
)
from ouro_rl.bench.workload import NEVER, Sizes, bench_model, make_requests, set_gate, trace_bias, trace_seeds
from ouro_rl.core.engine_config import EngineConfig
from ouro_rl.core.errors import RunError
from ouro_rl.core.sampling_params import ExitRule
from ouro_rl.model.modeling_ouro import OuroForCausalLM
from rollout_workers.engine.engine import RolloutEngine
from rollout_workers.engine.kv_cache import page_bytes
from rollout_workers.engine.scheduling.policy import SchedulingPolicy
from rollout_workers.engine.scheduling.scheduler import SPARE_TOKENS

GATE_SPREAD = 1.0
"""Standard deviation of the random gate's logits."""
PROBE_SAMPLES, PROBE_TOKENS = 1, 2
BF16_SHARE = 4
"""`generate()` in bf16 makes only 1 / BF16_SHARE of the tokens, because it takes long if bf16 is emulated."""
SAY_EVERY = 8
"""Tokens between two progress lines."""


class Lockstep(SchedulingPolicy):
    """Synchronous compaction: a sample that has its token waits until all samples have theirs."""

    runs_all_rows = False

    def choose_rows(self, live: Tensor, loops: Tensor) -> Tensor:
        inside_a_token = live[loops.index_select(0, live) > 1]
        return inside_a_token if len(inside_a_token) else live


class Contestants:
    """The runs, by name. They share a model except for its gate: each run sets its own before every pass."""

    def __init__(self, sizes: Sizes):
        self.sizes, self.model = sizes, bench_model(sizes)
        seeds = trace_seeds(self.model, sizes, sizes.batch, sizes.tokens)
        self.requests = make_requests(sizes, seeds, prompt=sizes.prompt)

    def engine(self, count: int, policy: SchedulingPolicy | None = None) -> RolloutEngine:
        """An engine whose KV pools have their final size and touched memory, so that none grows in a timed pass."""
        sizes = self.sizes
        pages = count * (sizes.prompt + sizes.tokens + SPARE_TOKENS) * sizes.loops  # so that no sample waits
        gib = pages * page_bytes(self.model.config, torch.bfloat16) / 2**30
        engine = RolloutEngine(self.model, EngineConfig(max_batch=count, kv_memory_gib=gib), policy=policy)
        for pool in (*engine.cache.keys, *engine.cache.values):
            pool.zero_()
        return engine

    def call(
        self, *, rule: ExitRule = BY_GATE, small: bool = False, sync: bool = False, bias: float | None = None,
        gate_spread: float = 0.0, tokens: int | None = None,
    ) -> TimedCall:  # fmt: skip
        count = self.sizes.small_batch if small else self.sizes.batch
        gate = copy.deepcopy(self.model.model.early_exit_gate)
        set_gate(gate, trace_bias(self.sizes) if bias is None else bias, spread=gate_spread)
        prepare = partial(setattr, self.model.model, "early_exit_gate", gate)
        engine = self.engine(count, Lockstep() if sync else None)
        return TimedCall(engine, self.requests[:count], tokens or self.sizes.tokens, rule, prepare)

    def big(self) -> dict[str, TimedCall]:
        return {"adaptive": self.call(), "fixed": self.call(rule=self.full)}

    def small(self) -> dict[str, TimedCall]:
        return {
            "adaptive_small": self.call(small=True),
            "lockstep_small": self.call(small=True, sync=True),
            "fixed_small": self.call(small=True, rule=self.full),
            "no_exit_small": self.call(small=True, bias=NEVER),
            "gate_small": self.call(small=True, gate_spread=GATE_SPREAD),
        }

    @property
    def full(self) -> ExitRule:
        return ExitRule(kind="fixed", value=self.sizes.loops)

    def run_beside_generate(
        self, model: OuroForCausalLM, say: Say
    ) -> tuple[dict[str, Run], Generated, list[tuple[float, Machine]]]:
        """Run the batch-64 calls at the pace of `generate()` on `model`, each kept at the same fraction of its tokens,
        and measure the machine's rates at every token."""
        calls, prober, machines = self.big(), Prober(self.sizes), []

        def between(made: int) -> None:
            keep_pace(list(calls.values()), made / self.sizes.tokens)
            machines.append((made / self.sizes.tokens, prober.measure()))
            if made % SAY_EVERY == 0:
                say(f"batch {self.sizes.batch}, with generate(): {made} of {self.sizes.tokens} tokens")

        generated = run_generate(model, self.requests, self.sizes.tokens, between)
        return {name: call.result() for name, call in calls.items()}, generated, machines

    def run_small(self) -> tuple[dict[str, Run], Generated]:
        """The batch-16 runs, with `generate()` in bf16 alongside their first quarter."""
        calls, sizes = self.small(), self.sizes

        def between(made: int) -> None:
            keep_pace(list(calls.values()), made / sizes.tokens)

        generated = run_generate(self.model, self.requests[: sizes.small_batch], sizes.tokens // BF16_SHARE, between)
        return run_together(calls), generated

    def probe_generate(self) -> tuple[str, OuroForCausalLM, dict[str, float]]:
        """The dtype in which `generate()` is faster, the model in it, and the seconds of a short call in each dtype."""
        models = {"bf16": self.model, "fp32": bench_model(self.sizes).float()}
        seconds = {}
        for name, model in models.items():
            run_generate(model, self.requests[:1], 2)
            seconds[name] = run_generate(model, self.requests[:PROBE_SAMPLES], PROBE_TOKENS).seconds
        faster = min(seconds, key=seconds.__getitem__)
        return faster, models[faster], seconds

    def check_same_work(self, runs: Mapping[str, Run]) -> None:
        """Raise RunError unless all runs made the same number of tokens, and those along the trace ran its loops."""
        sizes = self.sizes
        full = ("fixed", "fixed_small", "no_exit_small")
        for name, run in runs.items():
            count = sizes.small_batch if name.endswith("_small") else sizes.batch
            wanted = (
                None
                if name == "gate_small"
                else round((sizes.loops if name in full else sizes.mean_depth) * sizes.tokens) * count
            )
            recorded = sum(sum(rollout.depths) for rollout in run.rollouts)
            tokens, loops = run.last.tokens, run.last.loops
            if tokens != count * sizes.tokens or loops != recorded or wanted not in (None, loops):
                raise RunError(f"{name} ran {loops} loops for {tokens} tokens: not the same work as the others")


def bench_rollout(sizes: Sizes, say: Say) -> dict[str, Any]:
    """The section `rollout` of the JSON; `ratios` by their top-level names."""
    contestants = Contestants(sizes)
    say("warming up")
    warm_up(contestants.engine(sizes.small_batch), contestants.requests[: sizes.small_batch])
    say("probing generate()")
    precision, model, probe = contestants.probe_generate()
    runs, generated, machines = contestants.run_beside_generate(model, say)
    say(f"batch {sizes.small_batch}")
    small, generated_bf16 = contestants.run_small()
    runs |= small
    contestants.check_same_work(runs)
    return {
        "ratios": engine_ratios(sizes, runs, machines)
        | generate_ratios(runs["adaptive"], generated)
        | {"adaptive_vs_generate_bf16_b16": bf16_ratio(runs["adaptive_small"], generated_bf16)},
        "roofline": roofline_figures(sizes, runs["adaptive"], machines),
        "runs": {
            name: figures(run)
            for name, run in (runs | {"generate": generated, "generate_bf16_small": generated_bf16}).items()
        },
        "generate": {
            "precision": precision,
            "probe_seconds": probe,
            "probe_samples": PROBE_SAMPLES,
            "probe_tokens": PROBE_TOKENS,
        },
        "engine": contestants.model.model.row_ops(torch.bfloat16)[1],
    }


def engine_ratios(sizes: Sizes, runs: Mapping[str, Run], machines: Sequence[tuple[float, Machine]]) -> dict[str, dict]:
    """Spreads of the ratios between engine runs, by name."""
    speeds = {name: run.slice_speeds for name, run in runs.items() if name != "gate_small"}
    bound = sizes.loops / runs["adaptive"].mean_depth
    share = ratios(speeds["adaptive"], [bound * speed for speed in speeds["fixed"]])
    # Both run at the same depth, so the ratio of tokens/s is that of loops/s.
    seconds_ratio = ratios(speeds["fixed_small"], speeds["no_exit_small"])
    adaptive = runs["adaptive"]
    return {
        "continuous_share_of_bound": share,
        "continuous_vs_sync_b16": ratios(speeds["adaptive_small"], speeds["lockstep_small"]),
        "no_exit_overhead": excess(seconds_ratio),
        "share_of_roofline": ratios(
            slice_rooflines(sizes, adaptive, machines), [part.seconds for part in adaptive.slices]
        ),
    }


def generate_ratios(ours: Run, theirs: Generated) -> dict[str, dict]:
    """Spreads of the ratios to `generate()`, while decoding and over the whole call."""
    return {
        "adaptive_vs_generate": ratios(ours.slice_speeds, theirs.slice_speeds),
        "adaptive_vs_generate_whole_call": spread([ours.tokens_per_second / theirs.tokens_per_second]),
    }


def bf16_ratio(ours: Run, theirs: Generated) -> dict[str, float | int]:
    """Ratio of tokens/s while decoding, over the same first tokens."""
    parts = [part for part in ours.slices if part.shares[1] <= 1 / BF16_SHARE]
    if not parts:
        raise RunError("the first quarter of the tokens is too short to time: the sizes of this run are too small")
    speed = sum(part.loops for part in parts) / ours.mean_depth / sum(part.seconds for part in parts)
    return spread([speed / theirs.decode_tokens_per_second])


def roofline_figures(sizes: Sizes, run: Run, machines: Sequence[tuple[float, Machine]]) -> dict[str, Any]:
    """The figures that the roofline is computed from."""
    costs, rooflines = window_costs(sizes, run), slice_rooflines(sizes, run, machines)
    best = reduce(Machine.better, (machine for _, machine in machines))
    return {
        "read_bytes_per_second": spread([machine.bytes_per_second for _, machine in machines]),
        "read_by": best.how_read,
        "gemm_flop_per_second": spread([machine.flop_per_second for _, machine in machines]),
        "gemm_by": best.how_multiplied,
        "passes": len(costs),
        "mean_pass_bytes": sum(cost.bytes for cost in costs) / len(costs),
        "mean_pass_flop": sum(cost.flop for cost in costs) / len(costs),
        "tokens_per_second": run.window_loops / run.mean_depth / sum(rooflines),
    }


def figures(run: Run | Generated) -> dict[str, Any]:
    """Raw figures of one run."""
    found: dict[str, Any] = {
        "tokens_per_second": run.tokens_per_second,
        "decode_tokens_per_second": run.decode_tokens_per_second,
        "slices": run.slice_speeds,
        "window_seconds": run.window_seconds,
    }
    if isinstance(run, Generated):
        return found | {"seconds": run.seconds, "tokens": run.tokens}
    return found | {
        "seconds": run.last.seconds,
        "tokens": run.last.tokens,
        "loops": run.last.loops,
        "prompt_loops": run.last.prompt_loops,
        "passes": run.last.passes,
        "mean_depth": run.mean_depth,
        "pass_seconds": run.window_seconds / run.window_passes,
    }
