"""Several runs on one page: their figures side by side, where their configs differ, and their charts overlaid."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ouro_rl.core.atomic_write import write_atomically
from ouro_rl.core.errors import UserError
from ouro_rl.run_dir.flat_config import flat_config
from ouro_rl.run_dir.report.charts import Panel, move, series, step_chart
from ouro_rl.run_dir.report.diagnosis import diagnosis_section
from ouro_rl.run_dir.report.headline import state_of
from ouro_rl.run_dir.report.heldout_charts import frontier_chart
from ouro_rl.run_dir.report.page import html_page
from ouro_rl.run_dir.report.record import RunRecord, load_record
from ouro_rl.run_dir.report.run_charts import curves_of, figure_html, step_panels
from ouro_rl.run_dir.report.text import escape_text, number, percent, short

MOST_RUNS = 4
"""As many as the charts have colors."""
_TRAINING = {"Reward in training": "reward/mean", "Depth in training": "depth/mean", "Tokens/s": "tokens/s"}

Row = dict[str, Any]


def write_comparison(run_dirs: Sequence[Path], out: Path | None = None) -> Path:
    """Write a page about two to four runs and return its path: `out`, or `report_with_OTHERS.html` in the first run's
    folder. Raises UserError if one of them holds no run, or is given twice."""
    if not 2 <= len(run_dirs) <= MOST_RUNS:
        raise UserError(f"{len(run_dirs)} runs were given, and a page compares 2 to {MOST_RUNS}; give fewer")
    if len({path.resolve() for path in run_dirs}) < len(run_dirs):
        raise UserError("a run is given twice; give the folders of different runs")
    records = _with_own_names([load_record(path) for path in run_dirs])
    others = "_".join(record.run.path.resolve().name for record in records[1:])
    path = out or records[0].run.path / f"report_with_{others}.html"
    write_atomically(path, [comparison_page(records)])
    return path


def comparison_page(records: Sequence[RunRecord]) -> str:
    title = " and ".join(record.name for record in records)
    findings = "".join(diagnosis_section(record, record.name) for record in records)
    body = [
        f'<header><p class="eyebrow">ouro-rl report</p><h1>{escape_text(title)}</h1></header>\n',
        _figures_table(records),
        f'<h2>In plain words</h2><div class="grid">{findings}</div>\n',
        _overlaid_charts(records),
        _differences_table(records),
    ]
    return html_page(title, body, loops=max(record.max_loops for record in records))


def _with_own_names(records: Sequence[RunRecord]) -> list[RunRecord]:
    """The runs, told apart by as many parts of their folders as it takes."""
    parts = [record.run.path.resolve().parts for record in records]
    depth = next(n for n in range(1, 1 + max(map(len, parts))) if len({one[-n:] for one in parts}) == len(parts))
    return [replace(record, name="/".join(one[-depth:])) for record, one in zip(records, parts, strict=True)]


def _figures_table(records: Sequence[RunRecord]) -> str:
    return _table(["", *(record.name for record in records)], _figures(records))


def _figures(records: Sequence[RunRecord]) -> Iterator[list[str]]:
    yield ["State", *map(state_of, records)]
    yield ["Held-out accuracy", *(_before_after(record, "accuracy", percent) for record in records)]
    yield ["Held-out depth", *(_before_after(record, "depth", short) for record in records)]
    yield ["Held-out tokens per answer", *(_before_after(record, "length", short) for record in records)]
    for name, key in _TRAINING.items():
        yield [name, *(move(p, short) if (p := series(record.rows, key)) else "–" for record in records)]
    gaps = [[value for _, value in series(record.rows, "logp_gap/max")] for record in records]
    yield [
        "Largest log-prob gap",
        *(f"{max(values):.1e}" if any(values) else "0" if values else "–" for values in gaps),
    ]


def _before_after(record: RunRecord, key: str, text: Any) -> str:
    values = [number(record.figures.get(f"{key}_{when}")) for when in ("before", "after")]
    return " → ".join("–" if value is None else text(value) for value in values)


def _differences_table(records: Sequence[RunRecord]) -> str:
    """The keys of the configs that differ."""
    configs = [{key: value for key, value in record.config.items() if key != "about"} for record in records]
    flat = [dict(flat_config(config)) for config in configs]
    keys = [key for key in dict.fromkeys(key for one in flat for key in one) if key != "run.dir"]
    rows = [[key, *map(str, values)] for key in keys if len(set(values := [one.get(key, "–") for one in flat])) > 1]
    if not rows:
        return "<h2>Configuration</h2>\n<p>The same, but for the folders of the runs.</p>\n"
    return "<h2>Where the configurations differ</h2>\n" + _table(["", *(record.name for record in records)], rows)


def _overlaid_charts(records: Sequence[RunRecord]) -> str:
    charts = []
    curves = [
        replace(curve, name=curve.name if curve.name == record.name else f"{record.name}: {curve.name}")
        for place, record in enumerate(records)
        for curve in curves_of(record, color=place)
    ]
    if curves:
        charts.append(frontier_chart("Accuracy over loops per answer", curves))
    rows = overlaid_rows(records)
    for title, panels in overlaid_panels(records).items():
        if chart := step_chart(title, panels, rows):
            charts.append(chart)
    return f'<h2>Overlaid</h2>\n<div class="grid">{"".join(map(figure_html, charts))}</div>\n'


def overlaid_rows(records: Sequence[RunRecord]) -> list[Row]:
    """One row for each step of any run, with the metrics of all: `overlaid_key` of a run's place and metric."""
    rows: dict[int, Row] = {}
    for place, record in enumerate(records):
        for row in record.rows:
            target = rows.setdefault(row["step"], {"step": row["step"]})
            target |= {overlaid_key(place, key): value for key, value in row.items() if key != "step"}
    return [rows[step] for step in sorted(rows)]


def overlaid_key(place: int, key: str) -> str:
    return f"{place}:{key}"


def overlaid_panels(records: Sequence[RunRecord]) -> dict[str, list[Panel]]:
    """The panels of a run's charts with a line for each run; stacked ones, which cannot be overlaid, are left out."""
    found: dict[str, dict[str, Panel]] = {}
    for record in records:
        for title, panels in step_panels(record).items():
            for panel in (panel for panel in panels if not panel.stacked):
                labels = panel.labels or ("",) * len(panel.keys)
                for key, label in zip(panel.keys, labels, strict=True):
                    name = f"{panel.title}: {label}" if len(panel.keys) > 1 else panel.title
                    overlaid = tuple(overlaid_key(place, key) for place in range(len(records)))
                    names = tuple(record.name for record in records)
                    one = replace(panel, title=name, keys=overlaid, labels=names, limit=None)
                    found.setdefault(title, {}).setdefault(key, one)
    return {title: list(panels.values()) for title, panels in found.items()}


def _table(heads: Sequence[str], rows: Iterator[list[str]] | list[list[str]]) -> str:
    head = "".join(f'<th scope="col">{escape_text(text)}</th>' for text in heads)
    lines = "".join("<tr>" + "".join(f"<td>{escape_text(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return f'<div class="card scroll table"><table><thead><tr>{head}</tr></thead><tbody>{lines}</tbody></table></div>\n'
