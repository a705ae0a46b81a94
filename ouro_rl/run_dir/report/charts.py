"""Charts over steps: pure functions from the rows of `metrics.jsonl` to inline SVG."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from ouro_rl.core.summary_stats import mean
from ouro_rl.run_dir.report.svg import COLOR, Chart, as_svg, depth_color, drawing, new_figure, style_axis
from ouro_rl.run_dir.report.text import number, short

Series = list[tuple[int, float]]
"""(step, value) pairs for the steps with a known value, in the order of the run."""

_MAX_POINTS = 300
"""Longer series are binned: more points than a chart has pixels only make the page larger."""

_HEIGHT, _PANEL_HEIGHT = 0.5, 1.45
"""Inches of a chart around its panels, and of each panel."""
_GAP_RESOLUTION = 1e-8
"""Where a logarithmic axis ends if all values are 0."""


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
    return [(step, mean(value for _, value in window)) for (step, _), window in zip(points, windows, strict=True)]


def move(points: Series, text: Callable[[float], str]) -> str:
    """`first → last`, each the mean of a tenth of the series, because a single step is too noisy."""
    if len(points) == 1:
        return text(points[0][1])
    first, last = end_means([value for _, value in points])
    return f"{text(first)} → {text(last)}"


def end_means(values: Sequence[float]) -> tuple[float, float]:
    """The means of the first and of the last tenth of at least one value."""
    edge = math.ceil(len(values) / 10)
    return mean(values[:edge]), mean(values[-edge:])


def step_chart(title: str, panels: Sequence[Panel], rows: Sequence[dict[str, Any]]) -> Chart | None:
    """The panels stacked over a common step axis. Panels without data are left out; None if all are."""
    drawn = [panel for panel in panels if any(series(rows, key) for key in panel.keys)]
    if not drawn:
        return None
    steps = [row["step"] for row in rows]
    with drawing(title):
        figure = new_figure(height=_HEIGHT + _PANEL_HEIGHT * len(drawn))
        axes = figure.subplots(len(drawn), 1, sharex=True, squeeze=False)[:, 0]
        for axis, panel in zip(axes, drawn, strict=True):
            style_axis(axis)
            (_draw_stack if panel.stacked else _draw_lines)(axis, panel, rows)
            axis.set_title(panel.title, color=COLOR["muted"])
            if panel.text:
                axis.yaxis.set_major_formatter(lambda value, _, text=panel.text: text(value))
        axes[-1].set_xlabel("step", color=COLOR["muted"])
        axes[-1].xaxis.get_major_locator().set_params(integer=True, nbins=6)
        one = min(steps) == max(steps)
        axes[-1].set_xlim(min(steps) - one, max(steps) + one)  # an axis needs a width
        svg = as_svg(figure, title)
    return Chart(title=title, svg=svg, caption=" ".join(_describe(panel, rows) for panel in drawn))


def _draw_lines(axis: Any, panel: Panel, rows: Sequence[dict[str, Any]]) -> None:
    for index, key in enumerate(panel.keys):
        points = binned(series(rows, key), max if panel.log else mean)
        if not points:
            continue
        steps, values = [step for step, _ in points], [value for _, value in points]
        color = COLOR[f"c{index % 4 + 1}"]
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
        _log_axis_from_zero(axis, panel, rows)
    elif all(value == 0 for key in panel.keys for _, value in series(rows, key)):
        axis.set_ylim(0, 1)  # matplotlib would center the axis on zero, as if values could be negative
    if panel.limit is not None:
        axis.axhline(panel.limit, color=COLOR["c2"], linewidth=1.2, linestyle="--", label=f"limit {panel.limit:g}")
    _legend(axis)


def _draw_stack(axis: Any, panel: Panel, rows: Sequence[dict[str, Any]]) -> None:
    """Stacked areas, over the steps in which every recorded part is known."""
    keys = [key for key in panel.keys if series(rows, key)]
    whole = [row for row in rows if all(number(row.get(key)) is not None for key in keys)]
    parts = [binned(series(whole, key), mean) for key in keys]
    if not whole:
        return
    depth = panel.keys[0].startswith("depth/")
    steps: list[float] = [step for step, _ in parts[0]]
    heights = [[value for _, value in points] for points in parts]
    colors = [
        depth_color(int(key.removeprefix("depth/p"))) if depth else COLOR[f"c{panel.keys.index(key) % 4 + 1}"]
        for key in keys
    ]
    labels = [panel.labels[panel.keys.index(key)] for key in keys]
    if len(steps) == 1:  # an area needs a width
        steps, heights = [steps[0] - 0.4, steps[0] + 0.4], [height * 2 for height in heights]
    areas = axis.stackplot(steps, heights, colors=colors, labels=labels, alpha=1 if depth else 0.75)
    for area in areas:
        area.set(edgecolor=COLOR["card"], linewidth=0.6)
    axis.margins(x=0, y=0)
    if depth:
        axis.set_ylim(0, 1)
    _legend(axis, outside=True)


def _log_axis_from_zero(axis: Any, panel: Panel, rows: Sequence[dict[str, Any]]) -> None:
    """A logarithmic axis that has a 0, its lowest tick: an exact replay has a gap of 0, which is no small number."""
    values = [value for key in panel.keys for _, value in series(rows, key)]
    values += [panel.limit] if panel.limit is not None else []
    positive = [value for value in values if value > 0]
    low = math.floor(math.log10(min(positive, default=_GAP_RESOLUTION)))
    high = math.ceil(math.log10(max(positive, default=10 * _GAP_RESOLUTION)))
    axis.set_yscale("symlog", linthresh=10.0**low, linscale=0.5)
    spacing = math.ceil((high - low + 1) / 5)
    powers = range(low, high + 1, spacing)
    axis.set_yticks([0.0, *(10.0**power for power in powers)], ["0", *(f"1e{power}" for power in powers)])
    axis.minorticks_off()
    axis.set_ylim(-0.2 * 10.0**low, 1.5 * max(positive, default=10.0**high))


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
        labelcolor=COLOR["ink"],
        handlelength=1.1,
        borderaxespad=0.4,
        **where,
    )


def _describe(panel: Panel, rows: Sequence[dict[str, Any]]) -> str:
    """The panel in words."""
    known = {key: points for key in panel.keys if (points := series(rows, key))}
    if panel.log:
        worst = max(value for points in known.values() for _, value in points)
        what = f"at most {worst:.2g}" if worst else "0 at every step"
        return f"{panel.title}: {what}" + (f", limit {panel.limit:g}." if panel.limit is not None else ".")
    labels = dict(zip(panel.keys, panel.labels, strict=True)) if panel.labels else {}
    moves = [f"{labels.get(key, '')} {move(points, panel.text or short)}".strip() for key, points in known.items()]
    return f"{panel.title}: {', '.join(moves)}."
