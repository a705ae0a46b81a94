"""What `ouro-rl bench` does once its arguments are right: run benchmarks, print their table, write their JSON."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import Any

import torch

from ouro_rl.bench.cache import bench_cache
from ouro_rl.bench.curves import bench_curves, plot
from ouro_rl.bench.exact import bench_exact
from ouro_rl.bench.group import bench_group
from ouro_rl.bench.model import QUICK, Sizes, as_dict
from ouro_rl.bench.replay import bench_replay
from ouro_rl.bench.report import assemble, describe_machine, table, write_json
from ouro_rl.bench.rollout import bench_rollout

SECTIONS = {
    "rollout": {"rollout": bench_rollout},
    "replay": {"replay": bench_replay, "exact": bench_exact},
    "cache": {"cache": bench_cache},
    "group": {"group": bench_group},
    "curves": {"curves": bench_curves},
}
"""Benchmark -> sections of the JSON and what fills them."""
SHARES = {"rollout": 0.58, "replay": 0.14, "exact": 0.16, "cache": 0.04, "group": 0.08}
"""Of the seconds of `all`. What a section leaves over goes to those after it; a benchmark alone has all seconds for its sections, in
these proportions."""


def run_bench(
    name: str, *, seconds: float, quick: bool = False, json_file: Path | None = None, plot_file: Path | None = None
) -> dict[str, Any]:
    """Run the benchmark `name`: one round at least of all that it compares, more as far as `seconds` allow. Returns what the JSON holds."""
    started = time.perf_counter()
    machine = describe_machine(torch.get_num_threads(), torch.__version__)
    sizes = QUICK if quick else Sizes()
    chosen = [part for part in SECTIONS if part != "curves"] if name == "all" else [name]
    runners = {key: run for part in chosen for key, run in SECTIONS[part].items()}
    whole = sum(SHARES.get(key, 1.0) for key in runners)
    sections, deadline = {}, started
    for key, run in runners.items():
        say(started, f"{key} ...")
        deadline += seconds * SHARES.get(key, 1.0) / whole
        sections[key] = run(sizes, deadline, lambda line, key=key: say(started, f"{key}: {line}"))
    results = assemble(
        name, sections, machine=machine, sizes=as_dict(sizes), seconds=time.perf_counter() - started, quick=quick
    )
    if json_file is not None:
        write_json(results, json_file)
    if plot_file is not None and "curves" in sections:
        plot(sections["curves"], plot_file)
    print(table(results))
    return results


def say(started: float, line: str) -> None:
    """One line of progress."""
    load = f", load {os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else ""
    print(f"[{time.perf_counter() - started:5.0f} s{load}] {line}", file=sys.stderr, flush=True)
