"""The run directory: the only module that knows its file names. Everything but the checkpoints is plain text.

config.yaml               resolved config, with versions, commit and seed
metrics.jsonl             one object per step
rollouts/step-000123.jsonl  every rollout of a step
checkpoints/step-123/     Hugging Face format; written elsewhere and renamed into place, so always complete
best/                     the weights with the highest held-out accuracy during training
summary.json, report.html, loggers.json
"""

from __future__ import annotations

import itertools
import json
import math
import os
import re
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from ouro_rl.config.yaml12 import parse_yaml
from ouro_rl.core.atomic_write import write_atomically
from ouro_rl.core.errors import UserError
from ouro_rl.core.jsonl import parse_row, read_jsonl

BEST_FOLDER = "best"
_ROLLOUT_NAME = re.compile(r"step-(\d+)\.jsonl")
_LAST_ROW_BYTES = 2**14
_CHECKPOINT_NAME = re.compile(r"step-(\d+)")


class RunDir:
    """Paths, writers and readers of one run. Creating the object changes nothing; writers create the folders they need.

    All JSON is strict: numbers that are not finite are stored as null. Readers raise UserError if the directory does
    not exist or holds no run, or if a file in it is not what a run writes.
    """

    def __init__(self, path: str | os.PathLike[str]):
        self.path = Path(path)
        self.config_path = self.path / "config.yaml"
        self.metrics_path = self.path / "metrics.jsonl"
        self.rollouts_dir = self.path / "rollouts"
        self.checkpoints_dir = self.path / "checkpoints"
        self.best_path = self.path / BEST_FOLDER
        self.best_tmp_path = self.path / ".best.tmp"
        self.summary_path = self.path / "summary.json"
        self.report_path = self.path / "report.html"
        self.loggers_path = self.path / "loggers.json"

    def __repr__(self) -> str:
        return f"RunDir({str(self.path)!r})"

    def read_config(self) -> dict[str, Any]:
        """What `config.yaml` holds; empty if there is no such file."""
        try:
            values = parse_yaml(self.config_path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return {}
        except (OSError, UnicodeDecodeError, yaml.YAMLError):
            values = None
        if not isinstance(values, dict):
            raise UserError(f"{self.config_path}: is not a config; restore the file that the run wrote")
        return values

    def rollouts_path(self, step: int) -> Path:
        return self.rollouts_dir / f"step-{step:06d}.jsonl"

    def checkpoint_path(self, step: int) -> Path:
        """Folder of a complete checkpoint, renamed from `checkpoint_tmp_path`."""
        return self.checkpoints_dir / f"step-{step}"

    def checkpoint_tmp_path(self, step: int) -> Path:
        """Folder a checkpoint is written to, on the same file system as `checkpoint_path` so that the rename is
        atomic."""
        return self.checkpoints_dir / f".step-{step}.tmp"

    # --- metrics ---------------------------------------------------------------------------------------------------

    def append_metrics(self, metrics: Mapping[str, Any]) -> None:
        """Append one step's metrics as a row and flush it. `metrics` must have an integer `step`."""
        if not isinstance(metrics.get("step"), int):
            raise TypeError(f"metrics need an integer 'step', got {metrics.get('step')!r}")
        self.path.mkdir(parents=True, exist_ok=True)
        with self.metrics_path.open("a", encoding="utf-8") as file:
            file.write(_dumps(metrics) + "\n")

    def read_metrics(self) -> list[dict[str, Any]]:
        """All complete rows, in order; [] before the first step."""
        self._require_run()
        return list(read_jsonl(self.metrics_path, growing=True)) if self.metrics_path.exists() else []

    def last_metrics(self) -> dict[str, Any]:
        """The last row, without reading the others; {} before the first step."""
        if not self.metrics_path.exists():
            return {}
        with self.metrics_path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            tail, reach = b"", _LAST_ROW_BYTES
            while tail.rstrip().count(b"\n") == 0 and len(tail) < size:
                file.seek(max(0, size - reach))
                tail, reach = file.read(), 2 * reach
        lines = tail.rstrip().rsplit(b"\n", 1)
        return parse_row(lines[-1].decode(), str(self.metrics_path)) if lines[-1] else {}

    def metrics_of(self, step: int) -> dict[str, Any]:
        """The row of one step; empty if it has none (yet)."""
        return next((row for row in reversed(self.read_metrics()) if row["step"] == step), {})

    # --- rollouts --------------------------------------------------------------------------------------------------

    def write_rollouts(self, step: int, records: Iterable[Mapping[str, Any]]) -> None:
        """Write or replace the rollouts of `step`, one row each; the file appears when it is complete."""
        write_atomically(self.rollouts_path(step), (_dumps(record) + "\n" for record in records))

    def rollout_steps(self) -> list[int]:
        """Steps that have a rollouts file, ascending."""
        return [step for step, _ in _numbered(self.rollouts_dir, _ROLLOUT_NAME)]

    def read_rollouts(self, step: int | None = None) -> Iterator[dict[str, Any]]:
        """Rollouts of `step`, or of all steps in order. Raises UserError immediately (not on iteration) if `step` has
        none."""
        self._require_run()
        if step is not None and not self.rollouts_path(step).exists():
            have = self.rollout_steps()
            known = f"it has steps {have[0]} to {have[-1]}" if have else "it has none yet"
            raise UserError(f"{self.path}: no rollouts of step {step}; {known}")
        steps = self.rollout_steps() if step is None else [step]
        return (record for number in steps for record in read_jsonl(self.rollouts_path(number), growing=True))

    # --- summary and checkpoints -----------------------------------------------------------------------------------

    def write_summary(self, summary: Mapping[str, Any]) -> None:
        """Write or replace summary.json atomically."""
        text = json.dumps(_without_nonfinite(summary), indent=2, ensure_ascii=False, allow_nan=False)
        write_atomically(self.summary_path, [text, "\n"])

    def read_summary(self) -> dict[str, Any] | None:
        """The content of summary.json; None if the run has not written it yet."""
        self._require_run()
        if not self.summary_path.exists():
            return None
        return parse_row(self.summary_path.read_text(encoding="utf-8"), str(self.summary_path))

    def replace_best(self) -> None:
        """Make what was written to `best_tmp_path` the best weights."""
        if self.best_path.exists():
            shutil.rmtree(self.best_path)
        self.best_tmp_path.replace(self.best_path)

    def checkpoints(self) -> list[Path]:
        """All checkpoints, by ascending step; they were complete when they were written."""
        return [path for _, path in _numbered(self.checkpoints_dir, _CHECKPOINT_NAME) if path.is_dir()]

    def latest_checkpoint(self) -> Path | None:
        """The checkpoint of the highest step, or None."""
        found = self.checkpoints()
        return found[-1] if found else None

    def set_aside(self, checkpoint: Path) -> Path:
        """Rename a damaged checkpoint, so that it is no longer one of the run's. Returns its new path."""
        aside = next(
            path
            for number in itertools.count(1)
            if not (
                path := checkpoint.with_name(f"{checkpoint.name}.damaged{f'-{number}' if number > 1 else ''}")
            ).exists()
        )
        checkpoint.rename(aside)
        return aside

    def drop_old_checkpoints(self, keep: int) -> None:
        """Delete all but the `keep` newest checkpoints, and any that a killed process left incomplete."""
        found = [path for _, path in _numbered(self.checkpoints_dir, _CHECKPOINT_NAME)]
        for path in [*found[:-keep], *self.checkpoints_dir.glob(".step-*.tmp")]:
            shutil.rmtree(path)

    def remove_if_nothing_ran(self) -> None:
        """Delete the record of a run that ended before its first update, and the folder if nothing else is in it."""
        if self.metrics_path.exists() or self.rollouts_dir.exists() or self.checkpoints_dir.exists():
            return
        for path in (self.config_path, self.summary_path):
            path.unlink(missing_ok=True)
        if self.path.is_dir() and not any(self.path.iterdir()):
            self.path.rmdir()

    def truncate_after(self, step: int) -> None:
        """Delete metrics and rollouts of steps > `step`, and an incomplete last row, before a run is resumed.

        Checkpoints are kept.
        """
        if self.metrics_path.exists():
            kept = [record for record in read_jsonl(self.metrics_path, growing=True) if record["step"] <= step]
            write_atomically(self.metrics_path, (_dumps(record) + "\n" for record in kept))
        for number, path in _numbered(self.rollouts_dir, _ROLLOUT_NAME):
            if number > step:
                path.unlink()

    def _require_run(self) -> None:
        if not self.path.is_dir():
            raise UserError(f"{self.path}: no such run directory; give the directory that `ouro-rl train` wrote")
        if not any(
            path.exists() for path in (self.config_path, self.metrics_path, self.rollouts_dir, self.summary_path)
        ):
            raise UserError(
                f"{self.path}: holds no run (neither config.yaml nor metrics.jsonl nor summary.json);\n"
                "give the directory that `ouro-rl train` wrote"
            )


def last_step_and_gap(rows: Sequence[Mapping[str, Any]]) -> tuple[int, float | None]:
    """Of the rows of `metrics.jsonl`, at least one: the last step, and the largest log-prob gap (None: no row has
    one)."""
    gaps = [row["logp_gap/max"] for row in rows if row.get("logp_gap/max") is not None]
    return rows[-1]["step"], max(gaps, default=None)


def step_of(checkpoint: Path) -> int:
    """The update after which a checkpoint of a run was written."""
    return int(checkpoint.name.removeprefix("step-"))


def _numbered(folder: Path, pattern: re.Pattern[str]) -> list[tuple[int, Path]]:
    """(step, path) of the entries in `folder` whose whole name matches, by ascending step; [] without the folder."""
    entries = folder.iterdir() if folder.is_dir() else ()
    return sorted((int(match[1]), path) for path in entries if (match := pattern.fullmatch(path.name)))


def _dumps(record: Mapping[str, Any]) -> str:
    try:
        return json.dumps(record, ensure_ascii=False, allow_nan=False)
    except ValueError:  # the rare record with a NaN or infinity; checking every record would be slow
        return json.dumps(_without_nonfinite(record), ensure_ascii=False, allow_nan=False)


def _without_nonfinite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: _without_nonfinite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nonfinite(item) for item in value]
    return value
