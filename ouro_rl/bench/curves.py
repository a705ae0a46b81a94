"""`ouro-rl bench curves`: how cost grows with the workload, in one plot. Depths follow the trace; every point has few
new tokens.

batch     1 to 256 different prompts of 64 tokens
context   4 different prompts of 64 to 4096 tokens: the time of a pass is linear in the bytes that it must read
group     1 to 32 samples of one prompt of 256 tokens, which attention reads once
"""

from __future__ import annotations

from dataclasses import replace
from functools import reduce
from pathlib import Path
from typing import Any

from ouro_rl.bench.roofline import Machine, Prober, window_costs
from ouro_rl.bench.timing import Say, run_engine
from ouro_rl.bench.workload import Sizes, bench_model, make_requests, trace_seeds
from ouro_rl.core.engine_config import EngineConfig
from ouro_rl.model.modeling_ouro import OuroForCausalLM
from rollout_workers.engine.engine import RolloutEngine

REPEATS = 2
"""Runs per point; the faster one's decode window counts."""


def bench_curves(sizes: Sizes, say: Say) -> dict[str, Any]:
    """The section `curves` of the JSON."""
    model, prober = bench_model(sizes), Prober(sizes)
    points: dict[str, list[dict[str, float]]] = {"batch": [], "context": [], "group": []}
    for count in sizes.batches:
        points["batch"].append(point(model, sizes, prober, count, say, count=count, prompt=sizes.prompt))
    for prompt in sizes.contexts:
        points["context"].append(point(model, sizes, prober, prompt, say, count=sizes.context_batch, prompt=prompt))
    for count in sizes.groups:
        points["group"].append(
            point(model, sizes, prober, count, say, count=count, prompt=sizes.group_prompt, group=count)
        )
    return {
        "points": points,
        "line": straight_line(
            [entry["pass_bytes"] for entry in points["context"]], [entry["pass_seconds"] for entry in points["context"]]
        ),
    }


def point(
    model: OuroForCausalLM, sizes: Sizes, prober: Prober, x: int, say: Say, *, count: int, prompt: int, group: int = 1
) -> dict[str, float]:
    """One point of a curve."""
    seeds = trace_seeds(model, sizes, count, sizes.curve_tokens)
    requests = make_requests(sizes, seeds, prompt=prompt, group=group)
    engine = RolloutEngine(model, EngineConfig(max_batch=count))
    runs, machines = [], [prober.measure()]
    for _ in range(REPEATS):
        runs.append(run_engine(engine, requests, sizes.curve_tokens))
        machines.append(prober.measure())
    machine = reduce(Machine.better, machines)
    best = min(runs, key=lambda run: run.window_seconds)
    say(
        f"prompt {prompt}, {count} samples in groups of {group}: "
        f"{best.decode_tokens_per_second:.1f} tokens/s while decoding"
    )
    costs = window_costs(sizes, best)
    # A shared prompt must be read only once per group: subtract what the group's other samples would read.
    again = 2 * 2 * sizes.layers * sizes.hidden * (count - count // group) * (prompt - 1)
    least = [machine.seconds(replace(cost, bytes=cost.bytes - again)) for cost in costs]
    return {
        "x": x,
        "decode_tokens_per_second": best.decode_tokens_per_second,
        "tokens_per_second": best.tokens_per_second,
        "pass_seconds": best.window_seconds / best.window_passes,
        "pass_bytes": sum(cost.bytes for cost in costs) / len(costs) - again,
        "roofline_tokens_per_second": best.window_loops / best.mean_depth / sum(least),
        "peak_bytes": best.peak_bytes,
    }


def straight_line(xs: list[float], ys: list[float]) -> dict[str, float]:
    """Least-squares fit of seconds over bytes."""
    mean_x, mean_y = sum(xs) / len(xs), sum(ys) / len(ys)
    slope = sum((x - mean_x) * (y - mean_y) for x, y in zip(xs, ys, strict=True)) / sum((x - mean_x) ** 2 for x in xs)
    start = mean_y - slope * mean_x
    left = sum((y - start - slope * x) ** 2 for x, y in zip(xs, ys, strict=True))
    total = sum((y - mean_y) ** 2 for y in ys)
    return {"seconds_at_zero": start, "bytes_per_second": 1 / slope, "r_squared": 1 - left / total}


def plot(curves: dict[str, Any], path: Path) -> None:
    """Three panels: tokens/s by batch, time of a pass by bytes read, tokens/s by group."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, (by_batch, by_bytes, by_group) = pyplot.subplots(1, 3, figsize=(13, 4), constrained_layout=True)
    for axes, name, label in (
        (by_batch, "batch", "batch (samples)"),
        (by_group, "group", "group (samples of one prompt)"),
    ):
        entries = curves["points"][name]
        xs = [entry["x"] for entry in entries]
        axes.loglog(xs, [entry["decode_tokens_per_second"] for entry in entries], "o-", label="measured")
        axes.loglog(
            xs, [entry["roofline_tokens_per_second"] for entry in entries], "--", color="grey", label="roofline"
        )
        axes.set(xlabel=label, ylabel="tokens/s while decoding", title=f"by {name}")
        axes.set_xticks(xs, [str(x) for x in xs])
        axes.minorticks_off()
        axes.legend()
    entries, line = curves["points"]["context"], curves["line"]
    megabytes = [entry["pass_bytes"] / 1e6 for entry in entries]
    by_bytes.plot(megabytes, [1000 * entry["pass_seconds"] for entry in entries], "o", label="measured")
    fitted = [1000 * (line["seconds_at_zero"] + 1e6 * x / line["bytes_per_second"]) for x in megabytes]
    by_bytes.plot(megabytes, fitted, "--", color="grey", label=f"straight line, R² = {line['r_squared']:.4f}")
    for entry, x in zip(entries, megabytes, strict=True):
        by_bytes.annotate(
            f"{entry['x']}", (x, 1000 * entry["pass_seconds"]), textcoords="offset points", xytext=(6, -10)
        )
    by_bytes.set(xlabel="MB that a pass must read", ylabel="ms per pass", title="by context (tokens of the prompt)")
    by_bytes.legend()
    figure.savefig(path, dpi=110)
    pyplot.close(figure)
