"""Plots of a study: accuracy against loops and against FLOPs per answer, and depth against difficulty.

Files for a repository: plain colors on white, and the same bytes for the same figures."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ouro_rl.evaluation.study.report.frontier import Estimate

FORMATS = ("svg", "png")
_WIDTH, _HEIGHT, _PNG_DPI = 8.0, 4.8, 130
_NAME_HEIGHT, _ABOVE_AND_BELOW = 0.19, 0.5
"""Inches that a name of the legend takes, and the legend's margins."""
_RC = {"font.size": 9, "svg.fonttype": "none", "legend.fontsize": 8, "axes.spines.top": False,
       "axes.spines.right": False, "axes.grid": True, "grid.color": "#e2e3df"}  # fmt: skip
_MARKERS = "osD^vPX*<>p"
"""Eleven, beside twenty colors: no two of 220 arms look alike."""


@dataclass(frozen=True, kw_only=True)
class Line:
    """One arm in a plot."""

    name: str
    curve: Sequence[tuple[float, float]] = ()
    """Points joined by a line, in the order of their thresholds."""
    served: tuple[float, float] | None = None
    """The point at the rule that the arm is served with."""
    interval: Estimate | None = None
    """Of the served point's height."""


def frontier_plot(lines: Sequence[Line], *, x_label: str, y_label: str, title: str, files: Path) -> None:
    """Curves over thresholds, and each arm's served point with its interval; written to `files` with the
    suffixes of `FORMATS`."""

    def draw(axis: Any, colors: Mapping[str, Any]) -> None:
        for index, line in enumerate(lines):
            color, marker = colors[line.name], _MARKERS[index % len(_MARKERS)]
            if line.curve:
                axis.plot(*zip(*line.curve, strict=True), color=color, linewidth=1.1, marker=".", markersize=3)
            if line.served is not None:
                x, y = line.served
                errors = None if line.interval is None else [[y - line.interval.low], [line.interval.high - y]]
                # Hollow, and the first on top: arms may meet in a point.
                axis.errorbar([x], [y], yerr=errors, color=color, marker=marker, markersize=7, capsize=2,
                              markerfacecolor="none", markeredgewidth=1.6, zorder=3 + len(lines) - index,
                              linestyle="none", label=line.name)  # fmt: skip

    _save(draw, [line.name for line in lines], x_label, y_label, title, files)


def difficulty_plot(
    depths: Mapping[str, Mapping[int, float]], *, oracle: Mapping[int, float], title: str, files: Path
) -> None:
    """Loops per token against difficulty, one line per arm, and one for the oracle where there is one."""

    def draw(axis: Any, colors: Mapping[str, Any]) -> None:
        levels = sorted({level for by_level in depths.values() for level in by_level})
        for index, (name, by_level) in enumerate(depths.items()):
            points = sorted(by_level.items())
            axis.plot(*zip(*points, strict=True), color=colors[name], marker=_MARKERS[index % len(_MARKERS)],
                      markersize=5, linewidth=1.1, label=name)  # fmt: skip
        if oracle:
            axis.plot(*zip(*oracle.items(), strict=True), color="black", linestyle=":", linewidth=1.2, label="oracle")
        axis.set_xticks(levels)

    _save(draw, list(depths), "difficulty", "loops per token", title, files)


def height_for(names: int) -> float:
    """Inches of a figure whose legend, beside the axes, has so many names and one for an oracle."""
    return max(_HEIGHT, _ABOVE_AND_BELOW + _NAME_HEIGHT * (names + 1))


def _save(
    draw: Callable[[Any, Mapping[str, Any]], None], names: Sequence[str], x_label: str, y_label: str, title: str,
    files: Path,
) -> None:  # fmt: skip
    import matplotlib
    from matplotlib.figure import Figure

    settings: Any = {**_RC, "svg.hashsalt": title}  # the stubs list every key there is
    with matplotlib.rc_context(settings):
        figure = Figure(figsize=(_WIDTH, height_for(len(names))), layout="constrained")
        axis = figure.subplots()
        palette = matplotlib.colormaps["tab20"].resampled(20)
        # Strong shades first, then the pale ones of the same colors.
        draw(axis, {name: palette((2 * index) % 20 + (2 * index) // 20 % 2) for index, name in enumerate(names)})
        axis.set_xlabel(x_label)
        axis.set_ylabel(y_label)
        axis.set_title(title, loc="left")
        handles, labels = axis.get_legend_handles_labels()
        if handles:
            axis.legend(handles, labels, loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False)
        files.parent.mkdir(parents=True, exist_ok=True)
        for suffix, metadata in (("svg", {"Date": None, "Creator": None}), ("png", {"Software": None})):
            figure.savefig(files.with_suffix(f".{suffix}"), dpi=_PNG_DPI, metadata=metadata, facecolor="white")
