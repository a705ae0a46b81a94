"""What a run has recorded, read once for the page."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ouro_rl.run_dir.report.text import number
from ouro_rl.run_dir.run_dir import RunDir
from ouro_rl.run_dir.run_lock import Owner, owner_of

Row = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class RunRecord:
    """A run as it is now, finished or not."""

    run: RunDir
    name: str
    rows: list[Row]
    """The rows of `metrics.jsonl`."""
    summary: Row | None
    """None: not written yet."""
    config_text: str
    """`config.yaml`; empty without one."""
    config: Row
    owner: Owner
    """Whether a process is at work in its folder."""

    @property
    def figures(self) -> Row:
        """The summary; empty if there is none."""
        return self.summary or {}

    @property
    def finished(self) -> bool:
        return "steps" in self.figures

    @property
    def last_step_at(self) -> datetime | None:
        """When its last metrics were written, in UTC; None before the first."""
        path = self.run.metrics_path
        return datetime.fromtimestamp(path.stat().st_mtime, UTC) if path.exists() else None

    @property
    def max_loops(self) -> int:
        """T according to the metrics: the largest K of a recorded `depth/pK`; 0 if there is none."""
        return max_loops(self.rows)

    def setting(self, key: str) -> Any:
        """The value of a dotted key of the config; None if it is not there."""
        value: Any = self.config
        for part in key.split("."):
            value = value.get(part) if isinstance(value, dict) else None
        return value


def load_record(path: Path) -> RunRecord:
    """Raises UserError if `path` holds no run, or a file in it is not what a run writes."""
    run = RunDir(path)
    owner = owner_of(path)  # first: what a run that ends meanwhile writes is read after it
    rows = [row for row in run.read_metrics() if number(row.get("step")) is not None]
    config = run.read_config()
    return RunRecord(
        run=run,
        name=path.resolve().name,
        rows=rows,
        summary=run.read_summary(),
        config_text=run.config_path.read_text(encoding="utf-8") if config else "",
        config=config,
        owner=owner,
    )


def max_loops(rows: Sequence[Row]) -> int:
    keys = {key for row in rows for key in row}
    return max((int(match[1]) for key in keys if (match := re.fullmatch(r"depth/p(\d+)", key))), default=0)
