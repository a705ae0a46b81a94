"""Charts of a run's held-out evaluations: before and after as bars, and accuracy over loops per answer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from ouro_rl.run_dir.report.svg import COLOR, Chart, as_svg, drawing, new_figure, style_axis
from ouro_rl.run_dir.report.text import percent, short

_BAR_HEIGHT, _FRONTIER_HEIGHT = 1.8, 3.4
_COLORS, _STYLES = ("c1", "c2", "c3", "c4"), ("-", "--", ":")


@dataclass(frozen=True, kw_only=True)
class Point:
    """One evaluation."""

    name: str
    loops: float
    """Mean loops per answer."""
    accuracy: float
    interval: tuple[float, float] | None = None
    """Its 95% interval."""


@dataclass(frozen=True, kw_only=True)
class Curve:
    """Evaluations that belong together: one checkpoint under several exit rules, or one run over its updates."""

    name: str
    points: tuple[Point, ...]
    """At least one, in the order in which a line joins them."""
    color: int = 0
    named: bool = True
    """Whether each point has its name beside it; otherwise the first and the last have."""


def kind_of(name: str) -> str:
    """The line that a row of `eval.json` belongs to: its exit rule without the level, and its budget."""
    rule, _, budget = name.partition(", ")
    return ", ".join(filter(None, (rule.split(" ")[0], budget)))


def frontier_chart(title: str, curves: Sequence[Curve]) -> Chart:
    """Accuracy over loops per answer: up and to the left is better."""
    with drawing(title):
        figure = new_figure(height=_FRONTIER_HEIGHT)
        axis = figure.subplots()
        for curve in curves:
            _draw_curve(axis, curve)
        axis.set_xlim(left=0)
        axis.margins(x=0.15)
        axis.set_ylim(0, 1.05)
        axis.yaxis.set_major_formatter(lambda value, _: percent(value))
        axis.set_xlabel("loops per answer", color=COLOR["muted"])
        style_axis(axis)
        if len(curves) > 1:
            axis.legend(frameon=False, fontsize=8, labelcolor=COLOR["ink"], handlelength=1.1, loc="lower right")
        svg = as_svg(figure, title)
    words = [f"{curve.name}: " + ", ".join(_in_words(point) for point in _told(curve)) for curve in curves]
    return Chart(title=title, svg=svg, caption=f"Up and to the left is better. {'; '.join(words)}.")


def _draw_curve(axis: Any, curve: Curve) -> None:
    color, style = COLOR[_COLORS[curve.color % len(_COLORS)]], _STYLES[curve.color // len(_COLORS) % len(_STYLES)]
    loops, accuracy = [p.loops for p in curve.points], [p.accuracy for p in curve.points]
    axis.plot(loops, accuracy, color=color, linestyle=style, linewidth=1.4, marker="o", markersize=4, label=curve.name)
    for point in curve.points:
        if point.interval is not None:
            axis.plot([point.loops] * 2, point.interval, color=color, linewidth=1, alpha=0.6)
        if point in _told(curve):
            axis.annotate(
                point.name, (point.loops, point.accuracy), xytext=(6, -3), textcoords="offset points",
                fontsize=8, color=COLOR["ink"],
            )  # fmt: skip


def _told(curve: Curve) -> tuple[Point, ...]:
    """The points that are named."""
    return curve.points if curve.named else (curve.points[0], curve.points[-1])


def _in_words(point: Point) -> str:
    return f"{point.name} {percent(point.accuracy)} at {short(point.loops)}"


def before_after_chart(
    title: str,
    before: float,
    after: float,
    *,
    top: float,
    text: Callable[[float], str],
    intervals: Sequence[tuple[float, float]] = (),
) -> Chart:
    """Two bars, before and after, on an axis from 0 to `top`; `intervals` are the (low, high) of each, if known."""
    values = [before, after]
    with drawing(title):
        figure = new_figure(height=_BAR_HEIGHT)
        axis = figure.subplots()
        axis.barh([1, 0], values, height=0.56, color=[COLOR["line"], COLOR["c1"]])
        ends = values
        if intervals:
            errors = [
                [v - low for v, (low, _) in zip(values, intervals, strict=True)],
                [high - v for v, (_, high) in zip(values, intervals, strict=True)],
            ]
            axis.errorbar(values, [1, 0], xerr=errors, fmt="none", ecolor=COLOR["ink"], elinewidth=1.2, capsize=4)
            ends = [high for _, high in intervals]
        for row, value, end in zip([1, 0], values, ends, strict=True):
            axis.text(end + 0.02 * top, row, text(value), va="center", color=COLOR["ink"], weight="bold")
        axis.set_yticks([1, 0], ["before", "after"])
        axis.set_xlim(0, top)
        axis.xaxis.set_major_formatter(lambda value, _: text(value))
        style_axis(axis)
        axis.grid(axis="y", visible=False)
        axis.grid(axis="x", visible=True, color=COLOR["line"], linewidth=0.7)
        svg = as_svg(figure, title)
    parts = [f"{name} {text(value)}" for name, value in zip(("before", "after"), values, strict=True)]
    if intervals:
        parts = [f"{part} ({text(low)} to {text(high)})" for part, (low, high) in zip(parts, intervals, strict=True)]
    caption = f"{title}: {', '.join(parts)}." + (" Lines are 95% intervals." if intervals else "")
    return Chart(title=title, svg=svg, caption=caption)
