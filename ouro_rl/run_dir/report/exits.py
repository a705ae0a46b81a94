"""Where tokens leave: the distribution of depths by kind of token, and by place in the answer."""

from __future__ import annotations

import re
import statistics
from collections.abc import Sequence

from ouro_rl.core.summary_stats import depth_shares
from ouro_rl.run_dir.report.samples import StepSamples
from ouro_rl.run_dir.report.svg import COLOR, Chart, as_svg, depth_color, drawing, new_figure, style_axis
from ouro_rl.run_dir.report.text import depth_label, number, percent

PARTS = 10
"""Parts of equal length into which an answer is divided."""
_ROW_HEIGHT = 0.34
"""Inches of a bar."""
_KINDS = (
    ("special", re.compile(r"<[|/]?[A-Za-z_]\w*[|]?>")),
    ("line break", re.compile(r"\s*\n\s*")),
    ("space", re.compile(r"\s+")),
    ("TeX command", re.compile(r"\s*\\[A-Za-z]+\{?")),
    ("number", re.compile(r"\s*\d[\d.,]*")),
    ("word", re.compile(r"[^\d]*[^\W\d_][^\d]*")),
)
"""Kinds of tokens, by the first pattern that is all of a token's text; the others are symbols."""
KINDS = (*(name for name, _ in _KINDS), "symbol")

Exits = list[tuple[str, float, int]]
"""(text of the token, place in its answer from 0 to 1, depth) of tokens."""


def kind_of_token(text: str) -> str:
    return next((name for name, pattern in _KINDS if pattern.fullmatch(text)), "symbol")


def exits_of(step: StepSamples) -> Exits:
    """The tokens of a step whose record has both their texts and their depths."""
    found: Exits = []
    for record in (record for group in step.groups for record in group):
        tokens, depths = record.get("tokens"), record.get("depths")
        if not isinstance(tokens, list) or not isinstance(depths, list) or len(tokens) != len(depths):
            continue
        for place, (token, depth) in enumerate(zip(tokens, depths, strict=True)):
            if number(depth):
                found.append((str(token), place / len(tokens), int(depth)))
    return found


def exit_charts(steps: Sequence[StepSamples], max_loops: int) -> list[Chart]:
    """By kind of token and by place, in the first and the last of the steps; [] without tokens."""
    ends = list(dict.fromkeys((0, len(steps) - 1))) if steps else []
    read = [(steps[end].step, exits) for end in ends if (exits := exits_of(steps[end]))]
    return [_by_kind(read, max_loops), _by_place(read)] if read and max_loops > 0 else []


def _by_kind(read: Sequence[tuple[int, Exits]], max_loops: int) -> Chart:
    """One stacked bar for each kind of token and each step."""
    title = "Depth by kind of token"
    depths = {(kind, step): _depths_of(exits, kind) for step, exits in read for kind in KINDS}
    kinds = [kind for kind in KINDS if any(depths[kind, step] for step, _ in read)]
    rows = [(kind, step) for kind in kinds for step, _ in read]
    with drawing(title):
        figure = new_figure(height=0.8 + _ROW_HEIGHT * len(rows))
        axis = figure.subplots()
        left = [0.0] * len(rows)
        shares = [depth_shares(depths[row], max_loops) if depths[row] else [0.0] * max_loops for row in rows]
        places = [-(index + index // len(read) * 0.35) for index in range(len(rows))]
        for depth in range(1, max_loops + 1):
            widths = [share[depth - 1] for share in shares]
            bars = axis.barh(places, widths, left=left, height=0.8, color=depth_color(depth), label=depth_label(depth))
            for bar in bars:
                bar.set(edgecolor=COLOR["card"], linewidth=0.6)
            left = [start + width for start, width in zip(left, widths, strict=True)]
        axis.set_yticks(places, [f"{kind}, step {step:,}" for kind, step in rows])
        axis.set_xlim(0, 1)
        axis.xaxis.set_major_formatter(lambda value, _: percent(value))
        style_axis(axis)
        axis.grid(axis="y", visible=False)
        figure.legend(
            *axis.get_legend_handles_labels(), loc="outside upper center", ncols=max_loops, frameon=False, fontsize=8,
            labelcolor=COLOR["ink"], handlelength=1.1, columnspacing=1.0,
        )  # fmt: skip
        svg = as_svg(figure, title)
    words = [
        f"{kind} "
        + " → ".join(f"{statistics.fmean(found):.2f}" for step, _ in read if (found := depths[kind, step]))
        + f" ({len(depths[kind, read[-1][0]]):,})"
        for kind in kinds
    ]
    caption = f"Mean loops per token, {_steps(read)}, and tokens in the last: {', '.join(words)}."
    return Chart(title=title, svg=svg, caption=caption)


def _by_place(read: Sequence[tuple[int, Exits]]) -> Chart:
    """The mean depth over the length of an answer, a line for each step."""
    title = "Depth over the answer"
    lines = {step: _mean_by_part(exits) for step, exits in read}
    with drawing(title):
        figure = new_figure(height=3.4)
        axis = figure.subplots()
        for color, (step, line) in zip(("muted", "c1")[-len(lines) :], lines.items(), strict=True):
            axis.plot(*zip(*line, strict=True), color=COLOR[color], linewidth=1.9, marker="o", markersize=3,
                      label=f"step {step:,}")  # fmt: skip
        axis.set_title("Mean depth (loops per token)", color=COLOR["muted"])
        axis.set_xlim(0, 1)
        axis.set_ylim(bottom=1)
        axis.xaxis.set_major_formatter(lambda value, _: percent(value))
        axis.set_xlabel("place in the answer", color=COLOR["muted"])
        style_axis(axis)
        axis.legend(frameon=False, fontsize=8, labelcolor=COLOR["ink"], handlelength=1.1)
        svg = as_svg(figure, title)
    words = [
        f"step {step:,}: {line[0][1]:.2f} at the start, {line[-1][1]:.2f} at the end" for step, line in lines.items()
    ]
    return Chart(title=title, svg=svg, caption=f"Each answer is divided into {PARTS} equal parts. {'; '.join(words)}.")


def _mean_by_part(exits: Exits) -> list[tuple[float, float]]:
    """(middle of the part, mean depth) of the parts that have tokens."""
    depths: list[list[int]] = [[] for _ in range(PARTS)]
    for _, place, depth in exits:
        depths[int(place * PARTS)].append(depth)
    return [((part + 0.5) / PARTS, statistics.fmean(found)) for part, found in enumerate(depths) if found]


def _depths_of(exits: Exits, kind: str) -> list[int]:
    return [depth for text, _, depth in exits if kind_of_token(text) == kind]


def _steps(read: Sequence[tuple[int, Exits]]) -> str:
    return " → ".join(f"step {step:,}" for step, _ in read)
