"""The charts of a run: which ones there are, and what is said of those that its records do not give."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from ouro_rl.core.jsonl import parse_row
from ouro_rl.run_dir.report.charts import Panel, series, step_chart
from ouro_rl.run_dir.report.headline import TIMES, accuracy_intervals
from ouro_rl.run_dir.report.heldout_charts import Curve, Point, before_after_chart, frontier_chart, kind_of
from ouro_rl.run_dir.report.record import RunRecord
from ouro_rl.run_dir.report.svg import Chart
from ouro_rl.run_dir.report.text import depth_label, escape_text, number, percent, short

Row = dict[str, Any]


def charts_section(record: RunRecord, exits: Sequence[Chart]) -> str:
    """HTML of all charts; `exits` are those made from rollouts."""
    charts, missing = _before_after(record), []
    if not charts:
        absent = [key for key in ("accuracy_before", "accuracy_after") if number(record.figures.get(key)) is None]
        yet = "" if record.finished else " yet"
        missing.append(f"before and after (summary.json has no {', '.join(absent)}{yet})")
    if curves := curves_of(record):
        charts.append(frontier_chart("Accuracy over loops per answer", curves))
    panels_by_title = step_panels(record)
    for title, panels in panels_by_title.items():
        if chart := step_chart(title, panels, record.rows):
            charts.append(chart)
        lacking = [p for p in panels if not p.optional and not any(series(record.rows, key) for key in p.keys)]
        missing += [f"{panel.title.lower()} ({', '.join(panel.keys)})" for panel in lacking]
    figures = "".join(figure_html(chart) for chart in (*charts, *exits))
    note = f'<p class="muted note">Left out, no data: {escape_text("; ".join(missing))}.</p>' if missing else ""
    how = (
        "<p>Thin lines are single steps, thick lines a moving mean. "
        "The figures below a chart are means over the first → the last tenth of the steps.</p>"
        if record.rows
        else ""
    )
    return f'<h2>What happened</h2>\n{how}<div class="grid">{figures}</div>\n{note}\n'


def figure_html(chart: Chart) -> str:
    return (
        f'<figure class="card"><h3>{escape_text(chart.title)}</h3>{chart.svg}'
        f"<figcaption>{escape_text(chart.caption)}</figcaption></figure>\n"
    )


REFILL = Panel(
    title="Groups of an update: sampled in all, and taken from further prompts",
    keys=("groups/sampled", "groups/replaced"),
    labels=("sampled", "replaced"),
    optional=True,
)


def step_panels(record: RunRecord) -> dict[str, list[Panel]]:
    """The panels of every chart over steps, by its title."""
    parts = reward_parts(record.rows)
    return {
        "Reward": [
            Panel(title="Mean reward", keys=("reward/mean",)),
            *([Panel(title="Its parts, unweighted", keys=tuple(parts), labels=tuple(parts.values()))] if parts else []),
            Panel(title="Held-out accuracy", keys=("eval/accuracy",), text=percent, optional=True),
            Panel(
                title="Fraction of groups without a signal (all rewards equal)",
                keys=("groups/zero_variance",),
                text=percent,
                optional=True,
            ),
            REFILL,
        ],
        "Depth": [
            Panel(title="Mean depth (loops per token)", keys=("depth/mean",)),
            _depth_shares(record.max_loops),
        ],
        "Answers": [
            Panel(
                title="Tokens per completion",
                keys=("completion/length_mean", "completion/length_max"),
                labels=("mean", "longest"),
                optional=True,
            ),
            Panel(
                title="Loops per answer",
                keys=("compute/loops_per_answer", "compute/loops_per_correct_answer"),
                labels=("all answers", "for each correct one"),
                optional=True,
            ),
            Panel(title="Cut off at the maximum length", keys=("completion/cut_off",), text=percent, optional=True),
        ],
        "Exit gate": [
            Panel(title="Gate entropy (nats)", keys=("gate/entropy",)),
            Panel(title="Compute penalty", keys=("gate/penalty",)),
            Panel(title="Price of a loop", keys=("gate/price",), optional=True),
        ],
        "Policy": [
            Panel(title="Token entropy (nats)", keys=("token/entropy",), optional=True),
            Panel(title="KL to the sampler (nats)", keys=("kl/sampler",), optional=True),
        ],
        "Optimizer": [
            Panel(title="Token loss", keys=("loss/token",)),
            Panel(title="Gate loss", keys=("loss/gate",)),
            Panel(title="Gradient norm", keys=("grad_norm",), optional=True),
            Panel(title="Learning rate", keys=("lr",), text="{:.2g}".format, optional=True),
        ],
        "Speed": [
            Panel(title="Tokens per second", keys=("tokens/s",)),
            Panel(title="Busy share of the rollout workers", keys=("workers/busy",), optional=True),
            Panel(title="Seconds per step", keys=tuple(TIMES.values()), labels=tuple(TIMES), stacked=True),
        ],
        "Replay": [
            _log_prob_gap(record),
            Panel(title="Staleness of rollouts (policy versions)", keys=("staleness/mean",), optional=True),
        ],
    }


def _depth_shares(max_loops: int) -> Panel:
    depths = range(1, max(max_loops, 1) + 1)
    return Panel(
        title="Fraction of tokens by depth",
        keys=tuple(f"depth/p{depth}" for depth in depths),
        labels=tuple(depth_label(depth) for depth in depths),
        stacked=True,
        text=percent,
    )


def _log_prob_gap(record: RunRecord) -> Panel:
    limit = number(record.setting("trainer.logp_gap_limit"))
    title = "Largest log-prob gap between sampling and replay"
    return Panel(title=title, keys=("logp_gap/max",), log=True, limit=limit)


def reward_parts(rows: Sequence[Row]) -> dict[str, str]:
    """Metric -> name of each reward function, where a run has several."""
    keys = {key for row in rows for key in row if key.startswith("reward/") and "/status/" not in key}
    parts = sorted(keys - {"reward/mean", "reward/std", "reward/unscored"})
    return {key: key.removeprefix("reward/") for key in parts} if len(parts) > 1 else {}


def curves_of(record: RunRecord, *, color: int = 0) -> list[Curve]:
    """The run's evaluations over loops per answer: before, during and after training, and each `eval.json` in a folder
    of the run's (`ouro-rl eval --out RUN/NAME`)."""
    before, after = (_point(when, record.figures, when) for when in ("before", "after"))
    rows = [row for row in record.rows if number(row.get("eval/accuracy")) is not None]
    # The evaluation after the last update is also the one after training.
    during = [_point_during(row) for row in rows if after is None or row["step"] != record.figures.get("steps")]
    way = [point for point in (before, *during, after) if point is not None]
    curves = [Curve(name=record.name, points=tuple(way), color=color, named=len(way) <= 2)] if way else []
    for number_of, (name, points) in enumerate(_evaluations(record), start=1):
        curves.append(Curve(name=name, points=tuple(points), color=color + number_of))
    return curves


def _point(name: str, figures: Row, when: str) -> Point | None:
    accuracy, depth, length = (number(figures.get(f"{key}_{when}")) for key in ("accuracy", "depth", "length"))
    if accuracy is None or depth is None or length is None:
        return None
    intervals = accuracy_intervals(accuracy, accuracy, figures)
    return Point(name=name, loops=depth * length, accuracy=accuracy, interval=intervals[0] if intervals else None)


def _point_during(row: Row) -> Point | None:
    accuracy, depth, length = (number(row.get(f"eval/{key}")) for key in ("accuracy", "depth", "length"))
    if accuracy is None or depth is None or length is None:
        return None
    return Point(name=f"step {row['step']:,}", loops=depth * length, accuracy=accuracy)


def _evaluations(record: RunRecord) -> Iterator[tuple[str, list[Point]]]:
    """(name, points) of each line of the evaluations in the run's folder."""
    for path in sorted(record.run.path.glob("*/eval.json")):
        lines: dict[str, list[Point]] = {}
        for row in parse_row(path.read_text(encoding="utf-8"), str(path)).get("rows") or []:
            point = Point(
                name=str(row["name"]),
                loops=row["loops_per_answer"],
                accuracy=row["accuracy"],
                interval=(row["ci_low"], row["ci_high"]),
            )
            lines.setdefault(" ".join((path.parent.name, row["benchmark"], kind_of(point.name))), []).append(point)
        for name, points in lines.items():
            yield name, sorted(points, key=lambda point: point.loops)


def _before_after(record: RunRecord) -> list[Chart]:
    charts, figures = [], record.figures
    before, after = number(figures.get("accuracy_before")), number(figures.get("accuracy_after"))
    if before is not None and after is not None:
        intervals = accuracy_intervals(before, after, figures)
        charts.append(
            before_after_chart("Held-out accuracy", before, after, top=1.0, text=percent, intervals=intervals)
        )
    before, after = number(figures.get("depth_before")), number(figures.get("depth_after"))
    if before is not None and after is not None:
        top = max(record.max_loops, before, after) * 1.12  # room for the label of a full-depth bar
        charts.append(before_after_chart("Held-out mean depth", before, after, top=top, text=short))
    return charts
