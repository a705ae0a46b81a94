"""The top of the page: name and state of the run, its main figures, and the table of its evaluations."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ouro_rl.core.summary_stats import wilson_interval
from ouro_rl.run_dir.report.charts import move, series
from ouro_rl.run_dir.report.record import RunRecord
from ouro_rl.run_dir.report.text import duration, escape_text, number, percent, short
from ouro_rl.run_dir.run_lock import Owner

TIMES = {"rollout": "time/rollout_s", "reward": "time/reward_s", "train": "time/train_s", "sync": "time/sync_s"}

_UNFINISHED: dict[Owner, str] = {
    "running": "running",
    "killed": "killed before its end",
    "none": "stopped before its end",
    "unknown": "not finished",
}

Row = dict[str, Any]


def header(record: RunRecord) -> str:
    return (
        f'<header><p class="eyebrow">ouro-rl report</p><h1>{escape_text(record.name)}</h1>'
        f'<p class="muted state"><span class="badge">{escape_text(state_of(record))}</span></p></header>\n'
    )


def state_of(record: RunRecord) -> str:
    """Whether the run goes on, has finished or was ended, and how far it is, in words."""
    last = f"step {record.rows[-1]['step']:,}" if record.rows else "no step yet"
    if record.finished:
        return f"finished, {last}"
    at = "" if record.last_step_at is None else f" at {record.last_step_at:%Y-%m-%d %H:%M} UTC"
    return f"{_UNFINISHED[record.owner]}, {last}{at}"


def headline(summary: Row, max_loops: int) -> str:
    """The two main figures of a run, before -> after: higher accuracy is good, and so is lower depth."""
    cards = []
    before, after = (number(summary.get(f"accuracy_{when}")) for when in ("before", "after"))
    if before is not None and after is not None:
        intervals = accuracy_intervals(before, after, summary)
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


def facts_row(rows: Sequence[Row], summary: Row) -> str:
    """A row of small figures from the metrics, also for a run in progress, which has the figures before training."""
    facts = []
    for name, key, text in (("Accuracy", "accuracy", _percent), ("Mean depth", "depth", _loops)):
        before, after = (number(summary.get(f"{key}_{when}")) for when in ("before", "after"))
        if before is not None and after is None:
            facts.append((f"{name} before training", text(before)))
    for name, key in (("Reward in training", "reward/mean"), ("Depth in training", "depth/mean")):
        if points := series(rows, key):
            facts.append((name, move(points, "{:.2f}".format)))
    if points := series(rows, "compute/loops_per_answer"):
        facts.append(("Loops per answer", move(points, short)))
    if points := series(rows, "completion/cut_off"):
        facts.append(("Cut off at the maximum length", move(points, percent)))
    if gaps := series(rows, "logp_gap/max"):
        worst = max(value for _, value in gaps)
        where = "" if len(gaps) == len(rows) else f" (in {len(gaps)} of {len(rows)} steps)"
        facts.append(("Largest log-prob gap", (f"{worst:.1e}" if worst else "0") + where))
    elif series(rows, "logp_gap/compared"):
        facts.append(("Largest log-prob gap", "not known"))
    if speeds := sorted(value for _, value in series(rows, "tokens/s")):
        facts.append(("Tokens/s, median", f"{speeds[len(speeds) // 2]:,.0f}"))
    times = [value for key in TIMES.values() for _, value in series(rows, key)]
    if seconds := sum(times) - sum(value for _, value in series(rows, "time/overlapped_s")):
        facts.append(("Time in steps", duration(seconds)))
    items = "".join(f"<div><dt>{name}</dt><dd>{value}</dd></div>" for name, value in facts)
    return f'<dl class="facts">{items}</dl>\n' if facts else ""


def evaluation_table(summary: Row) -> str:
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


def accuracy_intervals(before: float, after: float, summary: Row) -> list[tuple[float, float]]:
    """95% intervals of the accuracy before and after; [] if the number of problems is unknown."""
    n = int(number(summary.get("n_heldout")) or 0)
    return [wilson_interval(round(share * n), n) for share in (before, after)] if n > 0 else []


def _percent(share: float | None) -> str:
    return "–" if share is None else f"{100 * share:.1f}\N{NO-BREAK SPACE}%"


def _range(low: float, high: float) -> str:
    return f"{100 * low:.1f}–{100 * high:.1f}\N{NO-BREAK SPACE}%"


def _loops(depth: float | None) -> str:
    return "–" if depth is None else f"{depth:.2f}"
