"""The page `docs/performance.md`, made from the JSON: no figure in it is typed by hand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ouro_rl.bench.predictions import FIGURES
from ouro_rl.bench.results import RATIOS, bars, figure_rows, read_json, show

COMMANDS = {
    "adaptive_vs_generate": "rollout", "continuous_share_of_bound": "rollout", "continuous_vs_sync_b16": "rollout",
    "no_exit_overhead": "rollout", "share_of_roofline": "rollout", "group_speedup": "group", "replay_time_ratio": "replay",
    "exact_cost": "replay", "kv_bytes_ratio": "cache",
}  # fmt: skip
"""Which benchmark measures a figure by itself."""

DEFINITIONS = """\
- **The trace.** The gate has no weights and one bias, chosen for E[d] = 2.5: a token's depth depends on its sample's seed and its place
  alone, so every engine gets the same depths. Only seeds whose depths add up to exactly 2.5 a token are taken, so the batch stays full to
  the last pass: what is timed is the steady state that a long queue gives. `gate_small` in the table of speeds has neither: depths drawn
  from a gate with random weights, and a batch that drains towards its end.
- **While decoding**: loops/s from the first look after the last prompt is through, to the end, over the mean depth. No prefill is in it,
  on either side; for `generate()`, from the first token of the batch to the last. **Whole call**: everything, prefill included.
- **adaptive against generate()**: transformers' own, greedy, one batch without padding, 4 loops; in bf16, or with the same weights cast to fp32
  where a probe says that this is faster (torch emulates bf16 products on CPUs that have no instructions for them).
- **share of 4 / mean depth**: (tokens/s adaptive / tokens/s of the same engine at fixed 4) / (4 / 2.5), while decoding.
- **against synchronous compaction**: the same engine, where who has a token waits until all have theirs (`Lockstep` in `ouro_rl/bench/rollout.py`), both at batch 16.
- **when no token exits**: the adaptive path with a gate that never says leave, against fixed 4; seconds a loop, while
  decoding, at batch 16, where what is not matrix products weighs more than at 64.
- **share of the roofline**: each pass at max(bytes / read bandwidth, FLOP / GEMM rate), both by the best of several ways and the best
  that was measured between the passes of the same eighth; over the seconds that these took.
- **group**: the whole call, against the same engine where every sample computes its prompt (`Unshared` in `ouro_rl/bench/group.py`).
- **replay**: the functions of the trainer's loss on one group (its prompt once, at full depth), fp32 master weights computing in bf16.
- **exact**: rollout and replay of one batch (2 groups of 16, 32 new tokens) with `model.model.exact` true, against false.
- **KV bytes**: pages of the completions' positions at the engine's peak, 32 new tokens.

**How it is measured.** Speed changes by the second where a host is shared. So calls that are compared run together, whoever is behind with its
tokens makes the next pass, and time is taken of each pass alone: a slow second slows all sides. Ratios are taken over eighths of the
completions, in which both sides did the same work at the same length; the table has their median, least and greatest. Replays take turns, whole."""


def markdown(results: Mapping[str, Any], machines: Sequence[str]) -> str:
    """The whole page. `machines`: the `machine_line` of each file."""
    parts = [
        "# Performance",
        "Random weights, 97.5 M parameters in Ouro's form (hidden 768, 12 layers, intermediate 2048, 12 heads, vocabulary 8192, 4 loops), bf16, "
        "prompt 64, 64 new tokens, batch 64. The figures come from one run of one command, the curves from one of another:",
        "```bash\nouro-rl bench all --json all.json        # under 10 minutes on 2 cores\n"
        "ouro-rl bench curves --json curves.json --plot docs/performance.png\n"
        "ouro-rl bench page all.json curves.json > docs/performance.md\n```",
        *machines,
    ]
    if results.get("quick"):
        parts.append("**Made with `--quick`: a tiny model. These figures say nothing about speed.**")
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
        parts += ["## Cost as work grows", "![Cost as work grows](performance.png)", *curve_tables(results["curves"])]
    parts += ["## What the words mean", DEFINITIONS]
    return "\n\n".join(parts) + "\n"


def machine_line(results: Mapping[str, Any]) -> str:
    """Of one file: what it was measured on."""
    machine = results["machine"]
    bf16 = ", ".join(machine["bf16_instructions"]) or "none"
    stolen = (
        ""
        if machine.get("stolen_share") is None
        else f" ({100 * machine['stolen_share']:.0f} % of the CPU time went to other guests of the host)"
    )
    return (
        f"`{results['benchmark']}`: measured on {machine['cpu']}, {machine['cores']} cores, {machine['threads']} threads; bf16 instructions: {bf16}; "
        f"torch {machine['torch']}, Python {machine['python']}; load before: {machine['load_before']}; {results['when']}; "
        f"{results['seconds'] / 60:.1f} minutes{stolen}."
    )


def rows_to_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def figure_table(results: Mapping[str, Any]) -> str:
    """All figures that are asked for; what no file holds is `open`."""
    head = ("", "measured", "least..greatest", "predicted", "at least / target / stretch", "by")
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
    return rows_to_table(
        ("", "tokens/s while decoding", "least..greatest", "whole call", "ms a pass", "mean depth"), rows
    )


def generate_line(rollout: Mapping[str, Any], bf16: float) -> str:
    generate, runs = rollout["generate"], rollout["runs"]
    probe = ", ".join(f"{name} {seconds:.1f} s" for name, seconds in generate["probe_seconds"].items())
    whole = runs["adaptive"]["tokens_per_second"] / runs["generate"]["tokens_per_second"]
    return (
        f"`generate()` ran in {generate['precision']} (a probe of {generate['probe_samples']} samples took {probe}). Of the whole call, prefill "
        f"included, the adaptive engine is {whole:.2f} times as fast. Against `generate()` in bf16, as these weights are, both at batch 16 over the first "
        f"quarter of the tokens: {bf16:.1f} times. The engine's path: {rollout['engine']}."
    )


def roofline_line(rollout: Mapping[str, Any]) -> str:
    roofline = rollout["roofline"]
    return (
        f"The roofline: reading {_of(roofline['read_bytes_per_second'])} GB/s ({roofline['read_by']}), multiplying "
        f"{_of(roofline['gemm_flop_per_second'])} GFLOP/s ({roofline['gemm_by']}), median, least..greatest while it ran; a pass of the adaptive run at batch 64 must read and write "
        f"{roofline['mean_pass_bytes'] / 1e6:.0f} MB and compute {roofline['mean_pass_flop'] / 1e9:.1f} GFLOP: {roofline['tokens_per_second']:.0f} tokens/s."
    )


def _of(found: Mapping[str, float]) -> str:
    """A spread, in units of 1e9."""
    return f"{found['median'] / 1e9:.0f} ({found['least'] / 1e9:.0f}..{found['greatest'] / 1e9:.0f})"


def memory_and_replay(results: Mapping[str, Any]) -> list[str]:
    parts = []
    if "replay" in results and "exact" in results:
        replay, exact = results["replay"], results["exact"]
        sides = replay["runs"]
        path = "one code path with and without, so this is noise" if exact["one_path"] else "two code paths"
        parts.append(
            "## Replay\n\n"
            f"Forward + backward of a group: {sides['mean_depth']['seconds']['median']:.2f} s at mean depth 2.5, "
            f"{sides['full_depth']['seconds']['median']:.2f} s at 4; rows alone would give {replay['row_ratio']:.3f}. Largest log-prob gap "
            f"between engine and replay: {sides['mean_depth']['largest_logprob_gap']:.1e} nats. `exact` costs "
            f"{100 * exact['rollout_cost']['median']:.1f} % of the rollout and {100 * exact['replay_cost']['median']:.1f} % of the replay "
            f"({path})."
        )
    if "cache" in results:
        cache = results["cache"]
        parts.append(
            "## Memory\n\n"
            f"KV bytes at mean depth 2.5 against full, prompts (always at full depth) counted too: {cache['with_prompts']:.3f} alone, "
            f"{cache['with_shared_prompts']:.3f} in a group of 16. A page is {cache['page_bytes']:,} bytes."
        )
    return parts


def curve_tables(curves: Mapping[str, Any]) -> list[str]:
    """One table a curve, and the straight line through the contexts."""
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
        columns = (head[name], "tokens/s while decoding", "whole call", "ms a pass", "MB that a pass must read")
        parts.append(rows_to_table(columns, rows))
    line = curves["line"]
    parts.append(
        f"Time of a pass against what it must read, over the contexts: {line['seconds_at_zero'] * 1000:.1f} ms + bytes / "
        f"{line['bytes_per_second'] / 1e9:.1f} GB/s, R^2 = {line['r_squared']:.4f}."
    )
    return parts


def page(files: Sequence[Path]) -> str:
    """Markdown of all the files' figures; a key that stands in several is taken from the last."""

    results: dict[str, Any] = {}
    lines = []
    for path in files:
        found = read_json(path)
        lines.append(machine_line(found))
        for key in ("predicted", "measured", RATIOS):
            found[key] = {**results.get(key, {}), **found.get(key, {})}
        results |= found
    return markdown(results, lines)
