"""The report of a run: one self-contained HTML page, written from the run directory alone.

Model output is untrusted: all text from the run passes through `escape_text`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ouro_rl.core.atomic_write import write_atomically
from ouro_rl.core.summary_stats import wilson_interval
from ouro_rl.run_dir.report.charts import (
    Chart,
    Panel,
    before_after_chart,
    move,
    number,
    percent,
    series,
    short,
    step_chart,
)
from ouro_rl.run_dir.report.examples import depth_label, escape_text, examples_section
from ouro_rl.run_dir.report.style import stylesheet
from ouro_rl.run_dir.run_dir import RunDir

_TIMES = {"rollout": "time/rollout_s", "reward": "time/reward_s", "train": "time/train_s", "sync": "time/sync_s"}

Row = dict[str, Any]


def write_report(run_dir: Path) -> Path:
    """Write `report.html` into `run_dir` from what the run has recorded so far, finished or not. Returns its path.

    What was not recorded is left out, and the page says so. Raises UserError if `run_dir` holds no run.
    """
    run = RunDir(run_dir)
    rows = [row for row in run.read_metrics() if number(row.get("step")) is not None]
    summary = run.read_summary()
    config = run.config_path.read_text(encoding="utf-8") if run.config_path.exists() else ""
    max_loops = _max_loops(rows)
    name = run.path.resolve().name
    body = [
        _header(name, rows, summary),
        _headline(summary or {}, max_loops),
        _facts(rows, summary or {}),
        _charts(summary or {}, rows, max_loops, config),
        examples_section(run, max_loops),
        _evaluation(summary or {}),
        _config(config),
    ]
    page = (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        # A second safeguard besides escaping: nothing in this page may run or be fetched.
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">\n"
        f"<title>{escape_text(name)} · ouro-rl report</title>\n<style>{stylesheet(max_loops)}</style>\n</head>\n"
        f"<body>\n<main>\n{''.join(body)}</main>\n</body>\n</html>\n"
    )
    write_atomically(run.report_path, [page])
    return run.report_path


def _header(name: str, rows: Sequence[Row], summary: Row | None) -> str:
    last = f"step {rows[-1]['step']:,}" if rows else "no step yet"
    state = "no summary yet" if summary is None else "finished" if "steps" in summary else "not finished"
    state = f"{state}, {last}"
    return (
        f'<header><p class="eyebrow">ouro-rl report</p><h1>{escape_text(name)}</h1>'
        f'<p class="muted" style="margin-top:10px"><span class="badge">{escape_text(state)}</span></p></header>\n'
    )


def _headline(summary: Row, max_loops: int) -> str:
    """The two main figures of a run, before -> after: higher accuracy is good, and so is lower depth."""
    cards = []
    before, after = (number(summary.get(f"accuracy_{when}")) for when in ("before", "after"))
    if before is not None and after is not None:
        intervals = _intervals(before, after, summary)
        note = f"95% intervals {' → '.join(_range(*interval) for interval in intervals)}, " if intervals else ""
        held_out = number(summary.get("n_heldout"))
        problems = f"{held_out:,.0f} held-out problems" if held_out else "held-out problems"
        points = 100 * (after - before)
        cards.append(
            _card("Accuracy", _percent(before), _percent(after), f"{points:+.1f} points", points > 0, note + problems)
        )
    before, after = (number(summary.get(f"depth_{when}")) for when in ("before", "after"))
    if before is not None and after is not None:
        change = 100 * (after / before - 1) if before else 0.0
        note = f"loops per completion token, at most {max_loops}" if max_loops else "loops per completion token"
        cards.append(_card("Mean depth", _loops(before), _loops(after), f"{change:+.0f} %", change < 0, note))
    return f'<div class="grid headline">{"".join(cards)}</div>\n' if cards else ""


def _card(title: str, before: str, after: str, change: str, is_good: bool, note: str) -> str:
    change = change.replace("-", "\N{MINUS SIGN}")
    return (
        f'<section class="card"><h3>{title}</h3><div class="move"><span class="before">{before}</span> '
        f'<span class="arrow" aria-label="to">→</span> {after}</div>'
        f'<div><span class="change {"good" if is_good else "bad"}">{change}</span> '
        f'<span class="muted">· {note}</span></div></section>'
    )


def _facts(rows: Sequence[Row], summary: Row) -> str:
    """A row of small figures from the metrics, also for a run in progress, which has the figures before training."""
    facts = []
    for name, key, text in (("Accuracy", "accuracy", _percent), ("Mean depth", "depth", _loops)):
        before, after = (number(summary.get(f"{key}_{when}")) for when in ("before", "after"))
        if before is not None and after is None:
            facts.append((f"{name} before training", text(before)))
    for name, key in (("Reward in training", "reward/mean"), ("Depth in training", "depth/mean")):
        if points := series(rows, key):
            facts.append((name, move(points, "{:.2f}".format)))
    if points := series(rows, "completion/cut_off"):
        facts.append(("Cut off at the maximum length", move(points, percent)))
    if gaps := series(rows, "logp_gap/max"):
        facts.append(("Largest log-prob gap", f"{max(value for _, value in gaps):.1e}"))
    if speeds := sorted(value for _, value in series(rows, "tokens/s")):
        facts.append(("Tokens/s, median", f"{speeds[len(speeds) // 2]:,.0f}"))
    times = [value for key in _TIMES.values() for _, value in series(rows, key)]
    if seconds := sum(times) - sum(value for _, value in series(rows, "time/overlapped_s")):
        facts.append(("Time in steps", _duration(seconds)))
    items = "".join(f"<div><dt>{name}</dt><dd>{value}</dd></div>" for name, value in facts)
    return f'<dl class="facts">{items}</dl>\n' if facts else ""


def _charts(summary: Row, rows: Sequence[Row], max_loops: int, config: str) -> str:
    charts = _before_after(summary, max_loops)
    absent_keys = [key for key in ("accuracy_before", "accuracy_after") if number(summary.get(key)) is None]
    yet = "" if "steps" in summary else " yet"
    missing = [] if charts else [f"before and after (summary.json has no {', '.join(absent_keys)}{yet})"]
    for title, panels in _step_panels(max_loops, _logp_gap_limit(config)).items():
        chart = step_chart(title, panels, rows)
        if chart:
            charts.append(chart)
        absent = [panel for panel in panels if not panel.optional and not any(series(rows, key) for key in panel.keys)]
        missing += [f"{panel.title.lower()} ({', '.join(panel.keys)})" for panel in absent]
    figures = "".join(_figure(chart) for chart in charts)
    note = f'<p class="muted note">Left out, no data: {escape_text("; ".join(missing))}.</p>' if missing else ""
    how = (
        "<p>Thin lines are single steps, thick lines a moving mean. "
        "The figures below a chart are means over the first → the last tenth of the steps.</p>"
        if rows
        else ""
    )
    return f'<h2>What happened</h2>\n{how}<div class="grid">{figures}</div>\n{note}\n'


def _step_panels(max_loops: int, gap_limit: float | None) -> dict[str, list[Panel]]:
    """The panels of every chart over steps, by its title."""
    depths = range(1, max(max_loops, 1) + 1)
    gap = "Largest log-prob gap between sampling and replay"
    no_signal = "Fraction of groups without a signal (all rewards equal)"
    return {
        "Reward": [
            Panel(title="Mean reward", keys=("reward/mean",)),
            Panel(title="Held-out accuracy", keys=("eval/accuracy",), text=percent, optional=True),
            Panel(title=no_signal, keys=("groups/zero_variance",), text=percent, optional=True),
        ],
        "Depth": [
            Panel(title="Mean depth (loops per token)", keys=("depth/mean",)),
            Panel(
                title="Fraction of tokens by depth",
                keys=tuple(f"depth/p{depth}" for depth in depths),
                labels=tuple(depth_label(depth) for depth in depths),
                stacked=True,
                text=percent,
            ),
        ],
        "Answers": [
            Panel(
                title="Tokens per completion",
                keys=("completion/length_mean", "completion/length_max"),
                labels=("mean", "longest"),
                optional=True,
            ),
            Panel(title="Cut off at the maximum length", keys=("completion/cut_off",), text=percent, optional=True),
        ],
        "Exit gate": [
            Panel(title="Gate entropy (nats)", keys=("gate/entropy",)),
            Panel(title="Compute penalty", keys=("gate/penalty",)),
            Panel(title="Price of a loop", keys=("gate/price",), optional=True),
        ],
        "Loss": [
            Panel(title="Token loss", keys=("loss/token",)),
            Panel(title="Gate loss", keys=("loss/gate",)),
        ],
        "Speed": [
            Panel(title="Tokens per second", keys=("tokens/s",)),
            Panel(title="Busy share of the rollout workers", keys=("workers/busy",), optional=True),
            Panel(title="Seconds per step", keys=tuple(_TIMES.values()), labels=tuple(_TIMES), stacked=True),
        ],
        "Replay": [
            Panel(title=gap, keys=("logp_gap/max",), log=True, limit=gap_limit),
            Panel(title="Staleness of rollouts (policy versions)", keys=("staleness/mean",), optional=True),
        ],
    }


def _before_after(summary: Row, max_loops: int) -> list[Chart]:
    charts = []
    before, after = number(summary.get("accuracy_before")), number(summary.get("accuracy_after"))
    if before is not None and after is not None:
        charts.append(
            before_after_chart(
                "Held-out accuracy", before, after, top=1.0, text=percent, intervals=_intervals(before, after, summary)
            )
        )
    before, after = number(summary.get("depth_before")), number(summary.get("depth_after"))
    if before is not None and after is not None:
        top = max(max_loops, before, after) * 1.12  # room for the label of a full-depth bar
        charts.append(before_after_chart("Held-out mean depth", before, after, top=top, text=short))
    return charts


def _figure(chart: Chart) -> str:
    return (
        f'<figure class="card"><h3>{escape_text(chart.title)}</h3>{chart.svg}'
        f"<figcaption>{escape_text(chart.caption)}</figcaption></figure>\n"
    )


def _evaluation(summary: Row) -> str:
    rows = [row for when in ("before", "after") if isinstance(row := summary.get(f"eval_{when}"), dict)]
    if not rows:
        return ""
    lines = []
    for row in rows:
        low, high = number(row.get("ci_low")), number(row.get("ci_high"))
        n = number(row.get("n"))
        cells = [
            escape_text(row.get("name", "–")),
            _percent(number(row.get("accuracy"))),
            "–" if low is None or high is None else _range(low, high),
            _loops(number(row.get("mean_depth"))),
            _percent(number(row.get("cut_off"))),
            "–" if n is None else f"{n:,.0f}",
        ]
        lines.append("<tr>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>")
    columns = ("", "Accuracy", "95% interval", "Mean depth", "Cut off", "n")
    heads = "".join(f'<th scope="col">{head}</th>' for head in columns)
    return (
        '<h2>Evaluation</h2>\n<div class="card scroll"><table><thead><tr>'
        f"{heads}</tr></thead><tbody>{''.join(lines)}</tbody></table></div>\n"
    )


def _config(config: str) -> str:
    if not config:
        return ""
    return f'<details class="card"><summary>Configuration</summary><pre>{escape_text(config)}</pre></details>\n'


def _max_loops(rows: Sequence[Row]) -> int:
    """T according to the metrics: the largest K of a recorded `depth/pK`; 0 if there is none."""
    keys = {key for row in rows for key in row}
    return max((int(match[1]) for key in keys if (match := re.fullmatch(r"depth/p(\d+)", key))), default=0)


def _logp_gap_limit(config: str) -> float | None:
    """The run's limit on the log-prob gap: the first config key with `logp_gap` in its name and a number."""
    match = re.search(r"^\s*\w*logp_gap\w*:\s*([0-9.][0-9.eE+-]*)\s*(?:#.*)?$", config, flags=re.MULTILINE)
    return float(match[1]) if match else None


def _intervals(before: float, after: float, summary: Row) -> list[tuple[float, float]]:
    """95% intervals of the accuracy before and after; [] if the number of problems is unknown."""
    n = int(number(summary.get("n_heldout")) or 0)
    return [wilson_interval(round(share * n), n) for share in (before, after)] if n > 0 else []


def _percent(share: float | None) -> str:
    return "–" if share is None else f"{100 * share:.1f}\N{NO-BREAK SPACE}%"


def _range(low: float, high: float) -> str:
    return f"{100 * low:.1f}–{100 * high:.1f}\N{NO-BREAK SPACE}%"


def _loops(depth: float | None) -> str:
    return "–" if depth is None else f"{depth:.2f}"


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s" if minutes else f"{seconds:.1f} s"
