"""Generates the page `docs/performance.md` from the JSON files; no figure in it is typed by hand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ouro_rl.bench.predictions import FIGURES
from ouro_rl.bench.results import RATIOS, bars, figure_rows, read_json, show

COMMANDS = {
    "adaptive_vs_generate": "rollout",
    "continuous_share_of_bound": "rollout",
    "continuous_vs_sync_b16": "rollout",
    "no_exit_overhead": "rollout",
    "share_of_roofline": "rollout",
    "group_speedup": "group",
    "replay_time_ratio": "replay",
    "exact_cost": "replay",
    "kv_bytes_ratio": "cache",
    "utilization": "dispatch",
    "utilization_dealt": "dispatch",
    "publication_seconds": "publication",
    "publication_of_copies": "publication",
    "publication_memory": "publication",
}
"""Figure -> the smallest benchmark that measures it."""

DEFINITIONS = """\
- **The trace.** The gate has zero weights and a bias chosen for E[d] = 2.5, so a token's depth depends only on its
  sample's seed and its position, and every engine gets the same depths. Only seeds with a mean depth of exactly 2.5 are
  used, so the batch stays full until the last pass: what is timed is the steady state of a long queue. Neither holds
  for `gate_small` in the table of speeds: its depths are sampled from a gate with random weights, and its batch drains
  towards the end.
- **While decoding**: loops/s from the end of the last prefill pass to the end of the call, divided by the mean depth.
  This excludes prefill on both sides; for `generate()`, it runs from the first token of the batch to the last. **Whole
  call**: everything, including prefill.
- **adaptive against generate()**: `generate()` of transformers, greedy, one batch without padding, 4 loops; in bf16, or
  with the same weights cast to fp32 if a probe finds that faster (torch emulates bf16 products on CPUs without
  instructions for them).
- **share of 4 / mean depth**: (tokens/s adaptive / tokens/s of the same engine at fixed 4) / (4 / 2.5), while decoding.
- **against synchronous compaction**: the same engine, but samples that have their token wait until all samples have
  theirs (`Lockstep` in `ouro_rl/bench/rollout.py`), both at batch 16.
- **when no token exits**: the adaptive path with a gate that never exits, against fixed 4; seconds per loop, while
  decoding, at batch 16, where everything but matrix products weighs more than at 64.
- **share of the roofline**: the time of each pass at max(bytes / read bandwidth, FLOP / GEMM rate), divided by its
  measured time. Both rates are the best of several methods, measured between the passes of the same eighth.
- **group**: the whole call, against the same engine with every sample computing its prompt (`Unshared` in
  `ouro_rl/bench/group.py`).
- **replay**: the functions of the trainer's loss on one group (its prompt once, at full depth), fp32 master weights
  computing in bf16.
- **exact**: rollout and replay of one batch (2 groups of 16, 32 new tokens) with `rollout.exact` true, against
  false.
- **KV bytes**: pages of the completions' positions at the engine's peak, 32 new tokens.

**How it is measured.** On a shared host speed changes by the second. So calls that are compared run together: the one
that is furthest behind in tokens runs the next pass, and each pass is timed by itself, so a slow second slows all
sides. Ratios are taken over eighths of the completions, in which both sides do the same work at the same length; the
table has their median, minimum and maximum. Replays take turns as a whole."""


def markdown(results: Mapping[str, Any], machines: Sequence[str]) -> str:
    """The whole page. `machines`: the `machine_line` of every file."""
    parts = [
        "# Performance",
        "Random weights, 97.5 M parameters in Ouro's architecture (hidden 768, 12 layers, intermediate 2048, 12 heads, "
        "vocabulary 8192, 4 loops), bf16, prompt 64, 64 new tokens, batch 64. The figures come from one run of the "
        "first command, the curves from one run of the second:",
        "```bash\nouro-rl bench all --json all.json        # under 10 minutes on 2 cores\n"
        "ouro-rl bench curves --json curves.json --plot docs/performance.png\n"
        "ouro-rl bench page all.json curves.json > docs/performance.md\n```",
        *machines,
    ]
    if results.get("quick"):
        parts.append("**Made with `--quick`, a tiny model: these figures say nothing about speed.**")
    parts += ["## Figures", figure_table(results), "## Predictions", PREDICTIONS]
    if "rollout" in results:
        parts += [
            "## Speeds",
            speed_table(results["rollout"]["runs"]),
            roofline_line(results["rollout"]),
            generate_line(results["rollout"], results["adaptive_vs_generate_bf16_b16"]),
        ]
    parts += memory_and_replay(results)
    if "curves" in results:
        parts += ["## Cost by workload", "![Cost by workload](performance.png)", *curve_tables(results["curves"])]
    parts += ["## Definitions", DEFINITIONS]
    return "\n\n".join(parts) + "\n"


def machine_line(results: Mapping[str, Any]) -> str:
    """What the figures of one file were measured on."""
    machine = results["machine"]
    bf16 = ", ".join(machine["bf16_instructions"]) or "none"
    stolen = (
        ""
        if machine.get("stolen_share") is None
        else f" ({100 * machine['stolen_share']:.0f} % of the CPU time went to other guests of the host)"
    )
    return (
        f"`{results['benchmark']}`: measured on {machine['cpu']}, {machine['cores']} cores, {machine['threads']} "
        f"threads; bf16 instructions: {bf16}; "
        f"torch {machine['torch']}, Python {machine['python']}; load before: {machine['load_before']}; "
        f"{results['when']}; {results['seconds'] / 60:.1f} minutes{stolen}."
    )


def rows_to_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def figure_table(results: Mapping[str, Any]) -> str:
    """All required figures; those that no file has are `open`."""
    head = ("", "measured", "min..max", "predicted", "required / target / stretch", "command")
    measured = iter(figure_rows(results))
    rows = []
    for key, figure in FIGURES.items():
        row = (
            next(measured)
            if key in results
            else (figure.words, "open", "-", show(figure, figure.predicted), bars(figure))
        )
        rows.append((*row, f"`ouro-rl bench {COMMANDS[key]}`"))
    return rows_to_table(head, rows)


PREDICTIONS = "Written before the first measurement, and not changed since.\n\n" + "\n".join(
    f"- {figure.words}: {show(figure, figure.predicted)}. {figure.why}" for figure in FIGURES.values()
)


def speed_table(runs: Mapping[str, Any]) -> str:
    rows = []
    for name, run in runs.items():
        slices, passes = run["slices"], f"{1000 * run['pass_seconds']:.1f}" if "pass_seconds" in run else ""
        rows.append((
            f"`{name}`", f"{run['decode_tokens_per_second']:.1f}", f"{min(slices):.1f}..{max(slices):.1f}",
            f"{run['tokens_per_second']:.1f}", passes, f"{run['mean_depth']:.2f}" if "mean_depth" in run else "4.00",
        ))  # fmt: skip
    return rows_to_table(("", "tokens/s while decoding", "min..max", "whole call", "ms per pass", "mean depth"), rows)


def generate_line(rollout: Mapping[str, Any], bf16: float) -> str:
    generate, runs = rollout["generate"], rollout["runs"]
    probe = ", ".join(f"{name} {seconds:.1f} s" for name, seconds in generate["probe_seconds"].items())
    whole = runs["adaptive"]["tokens_per_second"] / runs["generate"]["tokens_per_second"]
    return (
        f"`generate()` ran in {generate['precision']} (a probe of {generate['probe_samples']} samples took {probe}). "
        f"Over the whole call, including prefill, the adaptive engine is {whole:.2f} times as fast. Against "
        "`generate()` in bf16, the dtype of these weights, both at batch 16 over the first quarter of the tokens, it "
        f"is {bf16:.1f} times as fast. The engine's kernels: {rollout['engine']}."
    )


def roofline_line(rollout: Mapping[str, Any]) -> str:
    roofline = rollout["roofline"]
    return (
        f"The roofline: reading {_of(roofline['read_bytes_per_second'])} GB/s ({roofline['read_by']}), multiplying "
        f"{_of(roofline['gemm_flop_per_second'])} GFLOP/s ({roofline['gemm_by']}), median and min..max during the run. "
        "A pass of the adaptive run at batch 64 must read and write "
        f"{roofline['mean_pass_bytes'] / 1e6:.0f} MB and compute {roofline['mean_pass_flop'] / 1e9:.1f} GFLOP, "
        f"which gives {roofline['tokens_per_second']:.0f} tokens/s."
    )


def _of(found: Mapping[str, float]) -> str:
    """Format a spread in units of 1e9."""
    return f"{found['median'] / 1e9:.0f} ({found['least'] / 1e9:.0f}..{found['greatest'] / 1e9:.0f})"


def memory_and_replay(results: Mapping[str, Any]) -> list[str]:
    parts = []
    if "replay" in results and "exact" in results:
        replay, exact = results["replay"], results["exact"]
        sides = replay["runs"]
        path = "the same code path with and without, so this is noise" if exact["one_path"] else "two code paths"
        parts.append(
            "## Replay\n\n"
            f"Forward + backward of a group: {sides['mean_depth']['seconds']['median']:.2f} s at mean depth 2.5, "
            f"{sides['full_depth']['seconds']['median']:.2f} s at 4; rows alone would give {replay['row_ratio']:.3f}. "
            f"Largest log-prob gap between engine and replay: {sides['mean_depth']['largest_logprob_gap']:.1e} nats. "
            f"`exact` costs {100 * exact['rollout_cost']['median']:.1f}% of the rollout and "
            f"{100 * exact['replay_cost']['median']:.1f}% of the replay ({path})."
        )
    if "cache" in results:
        cache = results["cache"]
        parts.append(
            "## Memory\n\n"
            "KV bytes at mean depth 2.5 against full depth, including prompts (always at full depth): "
            f"{cache['with_prompts']:.3f} for single samples, {cache['with_shared_prompts']:.3f} in a group of 16. "
            f"A page has {cache['page_bytes']:,} bytes."
        )
    return parts


def curve_tables(curves: Mapping[str, Any]) -> list[str]:
    """One table per curve, and the linear fit over the contexts."""
    head = {"batch": "batch", "context": "prompt", "group": "group"}
    parts = []
    for name, points in curves["points"].items():
        rows = [
            (
                str(point["x"]), f"{point['decode_tokens_per_second']:.1f}", f"{point['tokens_per_second']:.1f}",
                f"{1000 * point['pass_seconds']:.2f}", f"{point['pass_bytes'] / 1e6:.0f}",
            )
            for point in points
        ]  # fmt: skip
        columns = (head[name], "tokens/s while decoding", "whole call", "ms per pass", "MB that a pass must read")
        parts.append(rows_to_table(columns, rows))
    line = curves["line"]
    parts.append(
        "Time of a pass as a linear function of the bytes it must read, over the contexts: "
        f"{line['seconds_at_zero'] * 1000:.1f} ms + bytes / "
        f"{line['bytes_per_second'] / 1e9:.1f} GB/s, R^2 = {line['r_squared']:.4f}."
    )
    return parts


def page(files: Sequence[Path]) -> str:
    """Markdown page with the figures of all files; a key in several files is taken from the last one."""
    results: dict[str, Any] = {}
    lines = []
    for path in files:
        found = read_json(path)
        lines.append(machine_line(found))
        for key in ("predicted", "measured", RATIOS):
            found[key] = {**results.get(key, {}), **found.get(key, {})}
        results |= found
    return markdown(results, lines)
