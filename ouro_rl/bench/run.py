"""Runs benchmarks for `ouro-rl bench`, prints their table and writes their JSON."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from ouro_rl.bench.cache import bench_cache
from ouro_rl.bench.curves import bench_curves, plot
from ouro_rl.bench.dispatch import bench_dispatch
from ouro_rl.bench.exact import bench_exact
from ouro_rl.bench.group import bench_group
from ouro_rl.bench.machine import cpu_ticks, describe_machine, stolen_share
from ouro_rl.bench.probes import bench_probes
from ouro_rl.bench.publication import bench_publication
from ouro_rl.bench.replay import bench_replay
from ouro_rl.bench.results import assemble, table, write_json
from ouro_rl.bench.rollout import bench_rollout
from ouro_rl.bench.workload import QUICK, Sizes, as_dict

SECTIONS: Mapping[str, Mapping[str, Callable[..., Any]]] = {
    "rollout": {"rollout": bench_rollout},
    "replay": {"replay": bench_replay, "exact": bench_exact},
    "cache": {"cache": bench_cache},
    "group": {"group": bench_group},
    "curves": {"curves": bench_curves},
    "probes": {"probes": bench_probes},
    "dispatch": {"dispatch": bench_dispatch},
    "publication": {"publication": bench_publication},
}
"""Benchmark -> sections of the JSON and the functions that produce them."""
APART = ("curves", "probes", "dispatch", "publication")
"""Not part of `all`."""


def run_bench(
    name: str,
    *,
    quick: bool = False,
    layers: int | None = None,
    json_file: Path | None = None,
    plot_file: Path | None = None,
) -> dict[str, Any]:
    """Run the benchmark `name`; `layers` are those of the model of `publication`. Returns the content of the JSON
    file."""
    started, ticks = time.perf_counter(), cpu_ticks()
    machine = describe_machine(torch.get_num_threads(), torch.__version__)
    sizes = QUICK if quick else Sizes()
    if layers is not None:
        sizes = replace(sizes, published_layers=layers)
    chosen = [part for part in SECTIONS if part not in APART] if name == "all" else [name]
    sections = {}
    for key, run in ((key, run) for part in chosen for key, run in SECTIONS[part].items()):
        say(started, f"{key} ...")
        sections[key] = run(sizes, partial(_say_of, started, key))
    machine["stolen_share"] = stolen_share(ticks, cpu_ticks())
    results = assemble(
        name, sections, machine=machine, sizes=as_dict(sizes), seconds=time.perf_counter() - started, quick=quick
    )
    if json_file is not None:
        write_json(results, json_file)
    if plot_file is not None and "curves" in sections:
        plot(sections["curves"], plot_file)
    print(table(results))
    return results


def _say_of(started: float, key: str, line: str) -> None:
    say(started, f"{key}: {line}")


def say(started: float, line: str) -> None:
    """Print one line of progress to stderr."""
    load = f", load {os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else ""
    print(f"[{time.perf_counter() - started:5.0f} s{load}] {line}", file=sys.stderr, flush=True)
