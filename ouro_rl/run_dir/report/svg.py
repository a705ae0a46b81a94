"""matplotlib figures as inline SVG: sizes, colors and the look of axes.

matplotlib is imported when the first chart is drawn. It draws with placeholder colors that are then replaced by the
page's CSS variables, so one chart serves the light and the dark theme.
"""

from __future__ import annotations

import html
import io
import re
from dataclasses import dataclass
from typing import Any

WIDTH = 4.6
"""Inches at 72 dpi; the page scales a chart to its column."""

# Placeholders: each color encodes the index of the CSS variable that replaces it.
_VARIABLES = ("ink", "muted", "line", "card", "c1", "c2", "c3", "c4")
COLOR = {name: f"#a0b0{index:02x}" for index, name in enumerate(_VARIABLES)}
_RC = {"svg.fonttype": "none", "font.size": 9, "axes.titlesize": 9, "axes.titlelocation": "left", "path.simplify": True}


@dataclass(frozen=True, kw_only=True)
class Chart:
    title: str
    svg: str
    """One `<svg>` element; its colors are CSS variables of the page."""
    caption: str
    """What is drawn, and the values at both ends, in words: caption and text alternative."""


def new_figure(*, height: float) -> Any:
    from matplotlib.figure import Figure  # not pyplot: no global state, no backend to choose

    return Figure(figsize=(WIDTH, height), layout="constrained")


def style_axis(axis: Any) -> None:
    axis.set_facecolor("none")
    axis.spines[:].set_visible(False)
    axis.spines["bottom"].set(visible=True, color=COLOR["line"])
    axis.grid(axis="y", color=COLOR["line"], linewidth=0.7)
    axis.set_axisbelow(True)
    axis.tick_params(colors=COLOR["muted"], labelcolor=COLOR["muted"], length=0, which="both")


def drawing(salt: str) -> Any:
    """matplotlib settings for drawing and saving a figure. `salt` keeps the ids of two charts apart and makes equal
    numbers give equal bytes."""
    import matplotlib

    settings: Any = {**_RC, "svg.hashsalt": salt}  # the stubs list every key there is
    return matplotlib.rc_context(settings)


def as_svg(figure: Any, label: str) -> str:
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


def depth_color(depth: int) -> str:
    return f"#d0d0{depth:02x}"
