"""Experiment trackers: `log: [tensorboard, wandb, trackio, mlflow]`.

Each gets the rows of `metrics.jsonl` under the same names, the config, and now and then a table of samples, through its
own client, whose settings (projects, servers, offline modes) are those of its environment variables. They are opened at
the first row, on the main process."""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from ouro_rl.core.atomic_write import write_atomically
from ouro_rl.core.errors import UserError
from ouro_rl.run_dir.flat_config import flat_config
from ouro_rl.run_dir.report.samples import read_step, spread
from ouro_rl.run_dir.run_dir import RunDir

PROJECT = "ouro-rl"
"""Project or experiment, where the tracker's own environment variable names none."""
SAMPLES_EVERY = 10
"""Updates between two tables of samples."""
SAMPLES = 8
COLUMNS = ("step", "question", "answer", "completion", "reward", "advantage", "depth", "tokens")
_PARAMETERS_AT_ONCE = 100
"""MLflow takes no more in one call."""
_LONGEST_PARAMETER = 500
"""Characters that each version of MLflow takes."""

Row = dict[str, Any]


class Tracker(Protocol):
    def log(self, metrics: Mapping[str, float], step: int) -> None: ...

    def table(self, rows: Sequence[Sequence[Any]], step: int) -> None:
        """`rows` have the values of `COLUMNS`."""

    def close(self) -> None: ...


class TensorBoard:
    """Event files in `tensorboard/` of the run's folder."""

    def __init__(self, run: RunDir, config: Row, ids: Row, step: int):
        from torch.utils.tensorboard import SummaryWriter  # needs the package tensorboard

        # purge_step: of a resumed run, what was logged after the checkpoint is no longer shown.
        self.writer = SummaryWriter(str(run.path / "tensorboard"), purge_step=step)
        self.writer.add_text("config", f"```json\n{json.dumps(config, indent=2)}\n```", step)

    def log(self, metrics: Mapping[str, float], step: int) -> None:
        for name, value in metrics.items():
            self.writer.add_scalar(name, value, step)

    def table(self, rows: Sequence[Sequence[Any]], step: int) -> None:
        self.writer.add_text("samples", markdown_table(rows), step)

    def close(self) -> None:
        self.writer.close()


class WandB:
    """Files in `wandb/` of the run's folder; WANDB_MODE=offline keeps them there."""

    def __init__(self, run: RunDir, config: Row, ids: Row, step: int):
        import wandb

        self.wandb = wandb
        self.run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", PROJECT), name=run.path.resolve().name, id=ids["id"],
            resume="allow", dir=str(run.path), config=config,
        )  # fmt: skip

    def log(self, metrics: Mapping[str, float], step: int) -> None:
        self.run.log(dict(metrics), step=step)

    def table(self, rows: Sequence[Sequence[Any]], step: int) -> None:
        self.run.log({"samples": self.wandb.Table(columns=list(COLUMNS), data=[list(row) for row in rows])}, step=step)

    def close(self) -> None:
        self.run.finish()


class Trackio:
    """A local database, or a Space: TRACKIO_DIR, TRACKIO_SPACE_ID."""

    def __init__(self, run: RunDir, config: Row, ids: Row, step: int):
        import trackio

        self.trackio = trackio
        self.run = trackio.init(
            project=os.environ.get("TRACKIO_PROJECT", PROJECT), name=f"{run.path.resolve().name}-{ids['id']}",
            space_id=os.environ.get("TRACKIO_SPACE_ID"), resume="allow", config=config, embed=False,
        )  # fmt: skip

    def log(self, metrics: Mapping[str, float], step: int) -> None:
        self.trackio.log(dict(metrics), step=step)

    def table(self, rows: Sequence[Sequence[Any]], step: int) -> None:
        table = self.trackio.Table(columns=list(COLUMNS), data=[list(row) for row in rows])
        self.trackio.log({"samples": table}, step=step)

    def close(self) -> None:
        self.trackio.finish()


class MLflow:
    """Where MLFLOW_TRACKING_URI says, by default a local database; the experiment is MLFLOW_EXPERIMENT_NAME."""

    def __init__(self, run: RunDir, config: Row, ids: Row, step: int):
        import mlflow

        self.mlflow = mlflow
        if "MLFLOW_EXPERIMENT_NAME" not in os.environ:
            mlflow.set_experiment(PROJECT)
        known = ids.get("mlflow")
        started = mlflow.start_run(run_id=known) if known else mlflow.start_run(run_name=run.path.resolve().name)
        ids["mlflow"] = started.info.run_id
        if not known:  # parameters cannot be written twice
            flat = [(key, value[:_LONGEST_PARAMETER]) for key, value in flat_config(config)]
            for first in range(0, len(flat), _PARAMETERS_AT_ONCE):
                mlflow.log_params(dict(flat[first : first + _PARAMETERS_AT_ONCE]))

    def log(self, metrics: Mapping[str, float], step: int) -> None:
        self.mlflow.log_metrics(dict(metrics), step=step)

    def table(self, rows: Sequence[Sequence[Any]], step: int) -> None:
        self.mlflow.log_text(markdown_table(rows), f"samples/step-{step:06d}.md")

    def close(self) -> None:
        self.mlflow.end_run()


TRACKERS: dict[str, Callable[[RunDir, Row, Row, int], Tracker]] = {
    "tensorboard": TensorBoard,
    "wandb": WandB,
    "trackio": Trackio,
    "mlflow": MLflow,
}
"""By name, which is also that of the package: what opens it for (run, config, ids of the run, first step)."""


class Loggers:
    """The trackers of a run. `update` is called after each row of `metrics.jsonl`."""

    def __init__(self, names: Sequence[str], run: RunDir, config: Row):
        self.names, self.run, self.config = names, run, config
        self.trackers: list[Tracker] | None = None
        self.last_table = -SAMPLES_EVERY

    def update(self, step: int) -> None:
        """Log the newest row, which is that of `step`, and its samples if they are due and on disk."""
        if self.trackers is None:
            self.trackers = self._open(step)
        row = self.run.last_metrics()
        assert row["step"] == step, "the row is written before it is logged"
        metrics = {name: value for name, value in row.items() if name != "step" and value is not None}
        for tracker in self.trackers:
            tracker.log(metrics, step)
        if step - self.last_table >= SAMPLES_EVERY and self.run.rollouts_path(step).exists():
            rows = sample_rows(self.run, step)
            for tracker in self.trackers:
                tracker.table(rows, step)
            self.last_table = step

    def close(self) -> None:
        for tracker in self.trackers or ():
            tracker.close()

    def _open(self, step: int) -> list[Tracker]:
        """The run keeps its ids, so that it goes on in the same place when it is resumed."""
        path = self.run.loggers_path
        ids = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {"id": uuid.uuid4().hex[:8]}
        trackers = [self._start(name, ids, step) for name in self.names]
        write_atomically(path, [json.dumps(ids), "\n"])
        return trackers

    def _start(self, name: str, ids: Row, step: int) -> Tracker:
        try:
            return TRACKERS[name](self.run, self.config, ids, step)
        except Exception as error:  # of the tracker's client: a server that does not answer, a missing login
            reason = next(iter(str(error).strip().splitlines()), "no reason given")
            raise UserError(
                f"log: {name} cannot be opened: {type(error).__name__}: {reason};\n"
                "  set its environment variables (docs/report.md), or take it out of `log`"
            ) from error


def sample_rows(run: RunDir, step: int) -> list[list[Any]]:
    """Some samples of a step, from the best to the worst reward: the values of `COLUMNS`. Of a large step, the first
    groups are read, as for the report."""
    records = [record for group in read_step(run, step).groups for record in group]
    chosen = spread(sorted(records, key=lambda record: -(record["reward"] or 0.0)), SAMPLES)
    return [
        [
            step, record["question"], record["answer"], record["completion"], record["reward"], record["advantage"],
            sum(record["depths"]) / max(1, len(record["depths"])), len(record["completion_ids"]),
        ]
        for record in chosen
    ]  # fmt: skip


def markdown_table(rows: Sequence[Sequence[Any]]) -> str:
    """A table of samples as Markdown: line breaks and bars inside a cell become harmless."""
    cells = [[str(value).replace("|", "\\|").replace("\n", " ⏎ ") for value in row] for row in rows]
    lines = [list(COLUMNS), ["---"] * len(COLUMNS), *cells]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
