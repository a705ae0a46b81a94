"""The report of a run: one self-contained HTML page, written from the run directory alone.

Model output is untrusted: text of a run is escaped (`escape_text`), or travels as JSON that the page's script turns
into text nodes. The Content Security Policy is a second safeguard: nothing is fetched, and no script runs but the
page's own.
"""

from __future__ import annotations

from pathlib import Path

from ouro_rl.core.atomic_write import write_atomically
from ouro_rl.run_dir.report.browser import browser_section, csp_hash, no_samples, script
from ouro_rl.run_dir.report.diagnosis import diagnosis_section
from ouro_rl.run_dir.report.exits import exit_charts
from ouro_rl.run_dir.report.headline import evaluation_table, facts_row, header, headline
from ouro_rl.run_dir.report.record import RunRecord, load_record
from ouro_rl.run_dir.report.reproduce import reproduce_section
from ouro_rl.run_dir.report.run_charts import charts_section
from ouro_rl.run_dir.report.samples import choose, read_steps
from ouro_rl.run_dir.report.style import stylesheet
from ouro_rl.run_dir.report.text import escape_text


def write_report(run_dir: Path, *, reload_s: float | None = None) -> Path:
    """Write `report.html` into `run_dir` from what the run has recorded so far, finished or not. Returns its path.

    What was not recorded is left out, and the page says so. An open page reloads itself every `reload_s` seconds; None:
    it does not. Raises UserError if `run_dir` holds no run.
    """
    record = load_record(run_dir)
    write_atomically(record.run.report_path, [report_page(record, reload_s)])
    return record.run.report_path


def report_page(record: RunRecord, reload_s: float | None = None) -> str:
    """The whole page."""
    steps, loops = read_steps(record.run), record.max_loops
    shown = choose(steps, recorded=len(record.run.rollout_steps()), loops=loops) if steps else None
    kept = record.setting("run.rollouts") != "none"
    body = [
        header(record),
        headline(record.figures, loops),
        facts_row(record.rows, record.figures),
        diagnosis_section(record),
        charts_section(record, exit_charts(steps, loops)),
        browser_section(shown) if shown else no_samples(kept),
        evaluation_table(record.figures),
        reproduce_section(record),
    ]
    return html_page(record.name, body, loops=loops, javascript=script() if shown else "", reload_s=reload_s)


def html_page(name: str, body: list[str], *, loops: int, javascript: str = "", reload_s: float | None = None) -> str:
    """The parts of a body as a page of their own, with the one script that it may run."""
    policy = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
    policy += f"; script-src {csp_hash(javascript)}" if javascript else ""
    closing = f"<script>{javascript}</script>\n" if javascript else ""
    reload = f'<meta http-equiv="refresh" content="{reload_s:g}">\n' if reload_s is not None else ""
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n{reload}'
        f"<title>{escape_text(name)} · ouro-rl report</title>\n<style>{stylesheet(loops)}</style>\n</head>\n"
        f"<body>\n<main>\n{''.join(body)}</main>\n{closing}</body>\n</html>\n"
    )
