"""The report's charts: pure functions from numbers to inline SVG.

matplotlib is imported when the first chart is drawn. It draws with placeholder colors that are then replaced by the
page's CSS variables, so one chart serves the light and the dark theme.
"""

from __future__ import annotations

import html
import io
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

Series = list[tuple[int, float]]
"""(step, value) pairs for the steps with a known value, in the order of the run."""

_MAX_POINTS = 300
"""Longer series are binned: more points than a chart has pixels only make the page larger."""

_WIDTH, _STEP_HEIGHT, _BAR_HEIGHT = 4.6, 3.4, 1.8
"""Inches at 72 dpi; the page scales a chart to its column. All step charts have one height, so that cards in a row
match."""

# Placeholders: each color encodes the index of the CSS variable that replaces it.
_VARIABLES = ("ink", "muted", "line", "card", "c1", "c2", "c3", "c4")
_COLOR = {name: f"#a0b0{index:02x}" for index, name in enumerate(_VARIABLES)}
_RC = {"svg.fonttype": "none", "font.size": 9, "axes.titlesize": 9, "axes.titlelocation": "left", "path.simplify": True}


@dataclass(frozen=True, kw_only=True)
class Chart:
    title: str
    svg: str
    """One `<svg>` element; its colors are CSS variables of the page."""
    caption: str
    """What is drawn, and the values at both ends, in words: caption and text alternative."""


@dataclass(frozen=True, kw_only=True)
class Panel:
    """One set of axes. `keys` are metric names; `labels` are shown to the reader."""

    title: str
    keys: tuple[str, ...]
    labels: tuple[str, ...] = ()
    stacked: bool = False
    log: bool = False
    text: Callable[[float], str] | None = None
    """How values are formatted; by default with three digits."""
    limit: float | None = None
    """A horizontal line: the limit of the values."""
    optional: bool = False
    """Not mentioned as missing if the run did not record it."""


def number(value: Any) -> float | None:
    """`value` as a float if it is a finite number, else None (records may hold null, NaN or strings)."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if math.isfinite(value) else None


def series(rows: Sequence[dict[str, Any]], key: str) -> Series:
    """The known values of metric `key` by step."""
    return [(row["step"], value) for row in rows if (value := number(row.get(key))) is not None]


def binned(points: Series, reduce: Callable[[list[float]], float], limit: int = _MAX_POINTS) -> Series:
    """Reduce to at most `limit` points: each is `reduce` of a bin of equal size, at the last step of the bin."""
    size = math.ceil(len(points) / limit) or 1
    chunks = [points[start : start + size] for start in range(0, len(points), size)]
    return [(chunk[-1][0], reduce([value for _, value in chunk])) for chunk in chunks]


def smoothed(points: Series) -> Series:
    """Centered moving mean over about a tenth of the series (half as wide at both ends)."""
    reach = len(points) // 20
    windows = [points[max(0, index - reach) : index + reach + 1] for index in range(len(points))]
    return [(step, _mean([value for _, value in window])) for (step, _), window in zip(points, windows, strict=True)]


def move(points: Series, text: Callable[[float], str]) -> str:
    """`first → last`, each the mean of a tenth of the series, because a single step is too noisy."""
    edge = math.ceil(len(points) / 10)
    values = [value for _, value in points]
    if len(values) == 1:
        return text(values[0])
    return f"{text(_mean(values[:edge]))} → {text(_mean(values[-edge:]))}"


def percent(share: float) -> str:
    return f"{100 * share:.3g}\N{NO-BREAK SPACE}%"


def short(value: float) -> str:
    """Three significant digits, with thousands separators instead of an exponent, and a typographic minus sign."""
    text = f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
    return text.replace("-", "\N{MINUS SIGN}")


def step_chart(title: str, panels: Sequence[Panel], rows: Sequence[dict[str, Any]]) -> Chart | None:
    """The panels stacked over a common step axis. Panels without data are left out; None if all are."""
    drawn = [panel for panel in panels if any(series(rows, key) for key in panel.keys)]
    if not drawn:
        return None
    steps = [row["step"] for row in rows]
    with _matplotlib(title):
        figure = _figure(height=_STEP_HEIGHT)
        axes = figure.subplots(len(drawn), 1, sharex=True, squeeze=False)[:, 0]
        for axis, panel in zip(axes, drawn, strict=True):
            _style(axis)
            (_draw_stack if panel.stacked else _draw_lines)(axis, panel, rows)
            axis.set_title(panel.title, color=_COLOR["muted"])
            if panel.text:
                axis.yaxis.set_major_formatter(lambda value, _, text=panel.text: text(value))
        axes[-1].set_xlabel("step", color=_COLOR["muted"])
        axes[-1].xaxis.get_major_locator().set_params(integer=True, nbins=6)
        one = min(steps) == max(steps)
        axes[-1].set_xlim(min(steps) - one, max(steps) + one)  # an axis needs a width
        svg = _svg(figure, title)
    return Chart(title=title, svg=svg, caption=" ".join(_describe(panel, rows) for panel in drawn))


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
    with _matplotlib(title):
        figure = _figure(height=_BAR_HEIGHT)
        axis = figure.subplots()
        axis.barh([1, 0], values, height=0.56, color=[_COLOR["line"], _COLOR["c1"]])
        ends = values
        if intervals:
            errors = [
                [v - low for v, (low, _) in zip(values, intervals, strict=True)],
                [high - v for v, (_, high) in zip(values, intervals, strict=True)],
            ]
            axis.errorbar(values, [1, 0], xerr=errors, fmt="none", ecolor=_COLOR["ink"], elinewidth=1.2, capsize=4)
            ends = [high for _, high in intervals]
        for row, value, end in zip([1, 0], values, ends, strict=True):
            axis.text(end + 0.02 * top, row, text(value), va="center", color=_COLOR["ink"], weight="bold")
        axis.set_yticks([1, 0], ["before", "after"])
        axis.set_xlim(0, top)
        axis.xaxis.set_major_formatter(lambda value, _: text(value))
        _style(axis)
        axis.grid(axis="y", visible=False)
        axis.grid(axis="x", visible=True, color=_COLOR["line"], linewidth=0.7)
        svg = _svg(figure, title)
    parts = [f"{name} {text(value)}" for name, value in zip(("before", "after"), values, strict=True)]
    if intervals:
        parts = [f"{part} ({text(low)} to {text(high)})" for part, (low, high) in zip(parts, intervals, strict=True)]
    caption = f"{title}: {', '.join(parts)}." + (" Lines are 95% intervals." if intervals else "")
    return Chart(title=title, svg=svg, caption=caption)


def _draw_lines(axis: Any, panel: Panel, rows: Sequence[dict[str, Any]]) -> None:
    if panel.log:
        axis.set_yscale("log")
    floor = _log_floor(panel, rows) if panel.log else -math.inf
    for index, key in enumerate(panel.keys):
        points = binned(series(rows, key), max if panel.log else _mean)
        if not points:
            continue
        steps, values = [step for step, _ in points], [max(value, floor) for _, value in points]
        color = _COLOR[f"c{index % 4 + 1}"]
        label = panel.labels[index] if panel.labels else None
        if len(points) < 20 or panel.log:  # a log axis shows the worst value, which a moving mean would hide
            axis.plot(
                steps,
                values,
                color=color,
                linewidth=1.5,
                label=label,
                marker="o" if len(points) < 20 else None,
                markersize=3,
            )
        else:
            axis.plot(steps, values, color=color, linewidth=0.8, alpha=0.35)
            axis.plot(steps, [value for _, value in smoothed(points)], color=color, linewidth=1.9, label=label)
    if panel.log:
        axis.set_ylim(bottom=floor / 3)
    elif all(value == 0 for key in panel.keys for _, value in series(rows, key)):
        axis.set_ylim(0, 1)  # matplotlib would center the axis on zero, as if values could be negative
    if panel.limit is not None:
        axis.axhline(panel.limit, color=_COLOR["c2"], linewidth=1.2, linestyle="--", label=f"limit {panel.limit:g}")
    _legend(axis)


def _draw_stack(axis: Any, panel: Panel, rows: Sequence[dict[str, Any]]) -> None:
    """Stacked areas, over the steps in which every recorded part is known."""
    keys = [key for key in panel.keys if series(rows, key)]
    whole = [row for row in rows if all(number(row.get(key)) is not None for key in keys)]
    parts = [binned(series(whole, key), _mean) for key in keys]
    if not whole:
        return
    depth = panel.keys[0].startswith("depth/")
    steps: list[float] = [step for step, _ in parts[0]]
    heights = [[value for _, value in points] for points in parts]
    colors = [
        _depth_color(int(key.removeprefix("depth/p"))) if depth else _COLOR[f"c{panel.keys.index(key) % 4 + 1}"]
        for key in keys
    ]
    labels = [panel.labels[panel.keys.index(key)] for key in keys]
    if len(steps) == 1:  # an area needs a width
        steps, heights = [steps[0] - 0.4, steps[0] + 0.4], [height * 2 for height in heights]
    areas = axis.stackplot(steps, heights, colors=colors, labels=labels, alpha=1 if depth else 0.75)
    for area in areas:
        area.set(edgecolor=_COLOR["card"], linewidth=0.6)
    axis.margins(x=0, y=0)
    if depth:
        axis.set_ylim(0, 1)
    _legend(axis, outside=True)


def _log_floor(panel: Panel, rows: Sequence[dict[str, Any]]) -> float:
    """Where to draw zeros, which a log axis lacks (an exact replay has a gap of 0): a decade below all other values."""
    positive = [value for key in panel.keys for _, value in series(rows, key) if value > 0]
    return min(positive, default=1e-8) / 10


def _legend(axis: Any, *, outside: bool = False) -> None:
    handles, labels = axis.get_legend_handles_labels()
    if not handles:
        return
    where = {"loc": "center left", "bbox_to_anchor": (1.0, 0.5)} if outside else {"loc": "best"}
    # The top of the stack comes first, as in the chart.
    order = slice(None, None, -1) if outside else slice(None)
    axis.legend(
        handles[order],
        labels[order],
        frameon=False,
        fontsize=8,
        labelcolor=_COLOR["ink"],
        handlelength=1.1,
        borderaxespad=0.4,
        **where,
    )


def _describe(panel: Panel, rows: Sequence[dict[str, Any]]) -> str:
    """The panel in words."""
    known = {key: points for key in panel.keys if (points := series(rows, key))}
    if panel.log:
        worst = max(value for points in known.values() for _, value in points)
        return f"{panel.title}: at most {worst:.2g}" + (f", limit {panel.limit:g}." if panel.limit is not None else ".")
    labels = dict(zip(panel.keys, panel.labels, strict=True)) if panel.labels else {}
    moves = [f"{labels.get(key, '')} {move(points, panel.text or short)}".strip() for key, points in known.items()]
    return f"{panel.title}: {', '.join(moves)}."


def _figure(*, height: float) -> Any:
    from matplotlib.figure import Figure  # not pyplot: no global state, no backend to choose

    return Figure(figsize=(_WIDTH, height), layout="constrained")


def _style(axis: Any) -> None:
    axis.set_facecolor("none")
    axis.spines[:].set_visible(False)
    axis.spines["bottom"].set(visible=True, color=_COLOR["line"])
    axis.grid(axis="y", color=_COLOR["line"], linewidth=0.7)
    axis.set_axisbelow(True)
    axis.tick_params(colors=_COLOR["muted"], labelcolor=_COLOR["muted"], length=0, which="both")


def _matplotlib(salt: str) -> Any:
    """matplotlib settings for drawing and saving a figure. `salt` keeps the ids of two charts apart and makes equal
    numbers give equal bytes."""
    import matplotlib

    settings: Any = {**_RC, "svg.hashsalt": salt}  # the stubs list every key there is
    return matplotlib.rc_context(settings)


def _svg(figure: Any, label: str) -> str:
    """The figure as one <svg> element with the page's colors, a label for screen readers, and no external resources."""
    buffer = io.StringIO()
    nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    figure.savefig(buffer, format="svg", transparent=True, metadata=nothing)
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<!--.*?-->\n?|<metadata>.*?</metadata>\n?", "", svg, flags=re.DOTALL)
    svg = re.sub(r'<g id="[^"]*"', "<g", svg)  # figure_1, axes_1 ...: repeated in every chart, and unused
    svg = svg.replace("<svg ", f'<svg role="img" aria-label="{html.escape(label)}" ', 1)
    svg = re.sub(r"#a0b0([0-9a-f]{2})", lambda match: f"var(--{_VARIABLES[int(match[1], 16)]})", svg)
    return re.sub(r"#d0d0([0-9a-f]{2})", lambda match: f"var(--d{int(match[1], 16)})", svg)


def _depth_color(depth: int) -> str:
    return f"#d0d0{depth:02x}"


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)
