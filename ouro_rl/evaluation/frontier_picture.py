"""The picture of an evaluation: accuracy against loops per answer, one line per kind of exit rule.

The same bytes for the same figures. matplotlib is imported when it is drawn."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ouro_rl.run_dir.report.heldout_charts import kind_of

WIDTH, HEIGHT, PNG_DPI = 5.6, 4.2, 130
"""Inches of one benchmark's axes, and the resolution of the PNG."""
_RC = {
    "font.size": 9, "svg.fonttype": "none", "axes.spines.top": False, "axes.spines.right": False, "axes.grid": True,
    "grid.color": "#e2e3df", "svg.hashsalt": "frontier",
}  # fmt: skip
_COLORS = ("#0b62a8", "#c25a00", "#0a8a66", "#a64d86", "#5f676f", "#8a6d00", "#b3401a", "#3c4fb0")
_MARKERS = "osD^vPX*"
Row = Mapping[str, Any]


def lines_of(rows: Sequence[Row]) -> dict[str, list[Row]]:
    """The rows of one benchmark by line, in the order of their loops."""
    lines: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        lines[kind_of(row["name"])].append(row)
    return {name: sorted(line, key=lambda row: row["loops_per_answer"]) for name, line in lines.items()}


def draw_frontier(rows: Sequence[Row], files: Path) -> None:
    """Write the rows of `eval.json` as `files`.png and .svg."""
    import matplotlib
    from matplotlib.figure import Figure

    benchmarks = list(dict.fromkeys(row["benchmark"] for row in rows))
    settings: Any = _RC  # the stubs list every key there is
    with matplotlib.rc_context(settings):
        # One below the other, so that they can be read on a phone.
        figure = Figure(figsize=(WIDTH, HEIGHT * len(benchmarks)), layout="constrained")
        axes = figure.subplots(len(benchmarks), 1, squeeze=False)[:, 0]
        for axis, benchmark in zip(axes, benchmarks, strict=True):
            _draw(axis, Path(benchmark).name, [row for row in rows if row["benchmark"] == benchmark])
        for suffix, metadata in (("svg", {"Date": None, "Creator": None}), ("png", {"Software": None})):
            figure.savefig(files.with_suffix(f".{suffix}"), dpi=PNG_DPI, metadata=metadata, facecolor="white")


def _draw(axis: Any, title: str, rows: Sequence[Row]) -> None:
    for index, (name, line) in enumerate(lines_of(rows).items()):
        xs, ys = [row["loops_per_answer"] for row in line], [100 * row["accuracy"] for row in line]
        below = [max(0.0, 100 * (row["accuracy"] - row["ci_low"])) for row in line]
        above = [max(0.0, 100 * (row["ci_high"] - row["accuracy"])) for row in line]
        color, marker = _COLORS[index % len(_COLORS)], _MARKERS[index % len(_MARKERS)]
        axis.errorbar(
            xs, ys, yerr=[below, above], label=name, color=color, marker=marker, markersize=5, linewidth=1.2,
            elinewidth=0.7, capsize=2,
        )  # fmt: skip
    axis.set_xlabel("loops per answer")
    axis.set_ylabel("accuracy, %")
    axis.set_title(title, loc="left", parse_math=False)
    axis.legend(frameon=False, fontsize=8)
