"""`ouro-rl report --watch`: writes the page again while the run goes on."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from ouro_rl.run_dir.report.page import write_report
from ouro_rl.run_dir.run_dir import RunDir
from ouro_rl.run_dir.run_lock import Owner, owner_of

POLL_S = 5.0
"""Seconds between two looks at the run."""
LEAST_REST = 4
"""A page that took a second to write rests for at least four, so that watching takes a fifth of a core at most."""


def watch(run_dir: Path, *, sleep: Callable[[float], None] = time.sleep) -> Path:
    """Write the page, and again whenever the run has recorded something, until the run is finished. Returns its path.

    The page reloads itself until the last time. Raises UserError if `run_dir` holds no run."""
    run, seen = RunDir(run_dir), None
    while True:
        now, started = _state(run), time.monotonic()
        if now != seen:
            finished = "steps" in (run.read_summary() or {})
            path = write_report(run_dir, reload_s=None if finished else POLL_S)
            if seen is None:
                more = (
                    ""
                    if finished
                    else "\nIt is written again while the run goes on, and reloads itself; Ctrl-C ends this."
                )
                print(f"report: {path}{more}")
            if finished:
                return path
            seen = now
        sleep(max(POLL_S, LEAST_REST * (time.monotonic() - started)))


def _state(run: RunDir) -> tuple[Owner, list[tuple[int, int]]]:
    """Whether the run goes on, time and size of what it appends to or writes anew: changes when the page would."""
    files = [path.stat() for path in (run.metrics_path, run.summary_path, run.config_path) if path.exists()]
    return owner_of(run.path), [(file.st_mtime_ns, file.st_size) for file in files]
