"""Each tracker with its own client where it is installed, and all of them with stand-ins."""

import importlib
import json
import os
import sys
from types import SimpleNamespace

import pytest

from ouro_rl.cli.preflight import files
from ouro_rl.core.errors import UserError
from ouro_rl.run_dir import loggers
from ouro_rl.run_dir.loggers import COLUMNS, Loggers, markdown_table, sample_rows
from ouro_rl.run_dir.run_dir import RunDir

CONFIG = {"trainer": {"lr": 0.1}, "log": ["wandb"]}


def record(reward: float, **changes) -> dict:
    return {
        "question": "1 | 1?", "answer": "2", "completion": "a\nb", "reward": reward, "advantage": 0.5,
        "depths": [1, 4], "completion_ids": [5, 6],
    } | changes  # fmt: skip


def make_run(path, steps: int = 1) -> RunDir:
    run = RunDir(path)
    for step in range(1, steps + 1):
        run.append_metrics(
            {"step": step, "reward/mean": 0.5 * step, "grad_norm": None, "reward/math/status/correct": 1.0}
        )
        run.write_rollouts(step, [record(reward) for reward in (0.0, 1.0, 0.5)])
    return run


class Recorder:
    """A tracker that keeps what it is given."""

    def __init__(self, run, config, ids, step):
        self.calls = [("open", config, dict(ids), step)]
        ids["seen"] = True

    def log(self, metrics, step):
        self.calls.append(("log", metrics, step))

    def table(self, rows, step):
        self.calls.append(("table", [row[COLUMNS.index("reward")] for row in rows], step))

    def close(self):
        self.calls.append(("close",))


def test_a_tracker_that_cannot_be_opened_is_named(tmp_path, monkeypatch):
    def refuse(*_):
        raise ConnectionError("no server at :5000\nlong explanation")

    monkeypatch.setitem(loggers.TRACKERS, "mlflow", refuse)
    with pytest.raises(UserError, match="^log: mlflow cannot be opened: [A-Za-z]+: no server at :5000;\n"):
        Loggers(["mlflow"], make_run(tmp_path / "run"), CONFIG).update(1)


def test_rows_tables_and_ids(tmp_path, monkeypatch):
    monkeypatch.setitem(loggers.TRACKERS, "wandb", Recorder)
    run = RunDir(tmp_path / "run")
    logged = Loggers(["wandb"], run, CONFIG)
    assert not run.path.exists()  # a run that fails before its first update leaves nothing behind
    for step in (1, 2, 11):
        run.append_metrics({"step": step, "reward/mean": 0.5, "grad_norm": None})
        run.write_rollouts(step, [record(0.0), record(1.0)])
        logged.update(step)
    logged.close()
    (tracker,) = logged.trackers
    (_, config, ids, first), *calls = tracker.calls
    assert config == CONFIG and first == 1 and len(ids["id"]) == 8
    assert calls == [
        ("log", {"reward/mean": 0.5}, 1), ("table", [1.0, 0.0], 1), ("log", {"reward/mean": 0.5}, 2),
        ("log", {"reward/mean": 0.5}, 11), ("table", [1.0, 0.0], 11), ("close",),
    ]  # fmt: skip
    again = Loggers(["wandb"], run, CONFIG)
    again.update(11)
    assert again.trackers[0].calls[0][2] == ids | {"seen": True}  # a resumed run goes on under its ids


def test_without_rollouts_there_is_no_table(tmp_path, monkeypatch):
    monkeypatch.setitem(loggers.TRACKERS, "wandb", Recorder)
    run = RunDir(tmp_path / "run")
    run.append_metrics({"step": 1, "reward/mean": 0.5})
    logged = Loggers(["wandb"], run, CONFIG)
    logged.update(1)
    assert [call[0] for call in logged.trackers[0].calls] == ["open", "log"]


def test_a_missing_package_is_named_before_the_run(monkeypatch):
    monkeypatch.setattr(files, "find_spec", lambda name: None)
    with pytest.raises(UserError, match="log: mlflow is not installed; pip install mlflow"):
        files.check_trackers(["mlflow"])
    files.check_trackers([])


def test_samples_go_from_the_best_to_the_worst(tmp_path):
    run = RunDir(tmp_path)
    run.write_rollouts(3, [record(reward / 100) for reward in range(100)])
    rows = sample_rows(run, 3)
    rewards = [row[COLUMNS.index("reward")] for row in rows]
    assert len(rows) == loggers.SAMPLES and rewards[0] == 0.99 and rewards[-1] == 0.0
    assert rewards == sorted(rewards, reverse=True)
    assert rows[0][:4] == [3, "1 | 1?", "2", "a\nb"] and rows[0][-2:] == [2.5, 2]


def test_cells_stay_in_their_table():
    lines = markdown_table([[1, "a | b", None, "x\ny", 1.0, 0.5, 2.5, 2]]).splitlines()
    assert len(lines) == 3 and "a \\| b" in lines[2] and "x ⏎ y" in lines[2]


def stand_ins(calls: list) -> dict[str, SimpleNamespace]:
    """Modules that note how their client is called."""

    def note(name):
        return lambda *args, **kwargs: calls.append((name, args, kwargs))

    def opened(name, result):
        return lambda *args, **kwargs: (note(name)(*args, **kwargs), result)[1]

    run = SimpleNamespace(log=note("log"), finish=note("finish"))
    started = SimpleNamespace(info=SimpleNamespace(run_id="r1"))
    return {
        "wandb": SimpleNamespace(init=opened("init", run), Table=lambda columns, data: ("table", columns, data)),
        "trackio": SimpleNamespace(
            init=opened("init", run), Table=lambda columns, data: ("table", columns, data), log=note("log"),
            finish=note("finish"),
        ),
        "mlflow": SimpleNamespace(
            set_experiment=note("set_experiment"), start_run=opened("start_run", started),
            log_params=note("log_params"), log_metrics=note("log_metrics"), log_text=note("log_text"),
            end_run=note("end_run"),
        ),
    }  # fmt: skip


@pytest.mark.parametrize("name", ["wandb", "trackio", "mlflow"])
def test_how_the_clients_are_called(name, tmp_path, monkeypatch):
    calls: list = []
    monkeypatch.setitem(sys.modules, name, stand_ins(calls)[name])
    run = make_run(tmp_path / "run")
    logged = Loggers([name], run, CONFIG)
    logged.update(1)
    logged.close()
    metrics = {"reward/mean": 0.5, "reward/math/status/correct": 1.0}
    names = [call[0] for call in calls]
    identity = json.loads(run.loggers_path.read_text())
    if name == "mlflow":
        assert names == ["set_experiment", "start_run", "log_params", "log_metrics", "log_text", "end_run"]
        assert calls[2][1] == ({"trainer.lr": "0.1", "log": "['wandb']"},) and calls[3][1:] == ((metrics,), {"step": 1})
        assert identity["mlflow"] == "r1" and calls[4][1][1] == "samples/step-000001.md"
        calls.clear()
        Loggers([name], run, CONFIG).update(1)
        assert ("start_run", (), {"run_id": "r1"}) in calls and "log_params" not in [call[0] for call in calls]
        return
    assert names == ["init", "log", "log", "finish"]
    opened = calls[0][2]
    assert opened["project"] == "ouro-rl" and opened["resume"] == "allow" and opened["config"] == CONFIG
    assert identity["id"] in (opened.get("id"), opened["name"].removeprefix("run-"))
    assert calls[1][1:] == ((metrics,), {"step": 1})
    kind, columns, rows = calls[2][1][0]["samples"]
    assert columns == list(COLUMNS) and [row[4] for row in rows] == [1.0, 0.5, 0.0]


def client(name: str, *needs: str):
    for package in (name, *needs):
        pytest.importorskip(package, reason=f"needs {package}: pip install 'ouro-rl[{name}]'")
    return importlib.import_module(name)


def test_tensorboard_reads_what_was_logged(tmp_path):
    client("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run = make_run(tmp_path / "run", steps=2)
    run.truncate_after(1)
    logged = Loggers(["tensorboard"], run, CONFIG)
    logged.update(1)
    run.append_metrics({"step": 2, "reward/mean": 0.75})
    logged.update(2)
    logged.close()
    events = EventAccumulator(str(run.path / "tensorboard")).Reload()
    assert [(event.step, event.value) for event in events.Scalars("reward/mean")] == [(1, 0.5), (2, 0.75)]
    assert "samples/text_summary" in events.Tags()["tensors"] and "config/text_summary" in events.Tags()["tensors"]


def test_wandb_writes_offline(tmp_path, monkeypatch):
    wandb = client("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    run = make_run(tmp_path / "run")
    logged = Loggers(["wandb"], run, CONFIG)
    logged.update(1)
    logged.close()
    wandb.teardown()  # ends the process that writes
    (kept,) = (run.path / "wandb").glob("offline-run-*/*.wandb")
    content = kept.read_bytes()
    assert b"reward/math/status/correct" in content and json.loads(run.loggers_path.read_text())["id"] in kept.name
    assert list((run.path / "wandb").glob("offline-run-*/files/media/table/samples*.json"))


def test_trackio_writes_a_local_database(tmp_path, monkeypatch):
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))  # read when it is imported
    client("trackio")
    run = make_run(tmp_path / "run")
    logged = Loggers(["trackio"], run, CONFIG)
    logged.update(1)
    logged.close()
    from trackio.utils import TRACKIO_DIR

    assert b"reward/math/status/correct" in b"".join(path.read_bytes() for path in TRACKIO_DIR.glob("*.db*"))


def test_mlflow_keeps_its_run(tmp_path, monkeypatch):
    mlflow = client("mlflow", "sqlalchemy", "alembic")
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    monkeypatch.chdir(tmp_path)  # where artifacts go
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    mlflow.set_tracking_uri(uri)
    run = make_run(tmp_path / "run")
    for _ in range(2):  # the second is the run resumed
        logged = Loggers(["mlflow"], run, CONFIG)
        logged.update(1)
        logged.close()
        run.truncate_after(0)
        run.append_metrics({"step": 1, "reward/mean": 0.75})
    kept = mlflow.get_run(json.loads(run.loggers_path.read_text())["mlflow"])
    assert kept.data.metrics["reward/mean"] == 0.75 and kept.data.params["trainer.lr"] == "0.1"
    assert os.environ["MLFLOW_TRACKING_URI"] == uri
