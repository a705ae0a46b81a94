import json
import subprocess
import sys

import pytest

from ouro_rl.core.errors import UserError
from ouro_rl.run_dir.run_dir import RunDir
from tests.references.patience import HANG_S


@pytest.fixture
def run(tmp_path):
    return RunDir(tmp_path / "runs" / "one")


def test_file_names_are_those_of_the_documentation(run):
    relative = [
        path.relative_to(run.path).as_posix()
        for path in (
            run.config_path,
            run.metrics_path,
            run.rollouts_path(123),
            run.checkpoint_path(7),
            run.checkpoint_tmp_path(7),
            run.summary_path,
            run.report_path,
        )
    ]
    assert relative == [
        "config.yaml",
        "metrics.jsonl",
        "rollouts/step-000123.jsonl",
        "checkpoints/step-7",
        "checkpoints/.step-7.tmp",
        "summary.json",
        "report.html",
    ]
    assert not run.path.exists()  # asking for paths creates nothing


def test_metrics_come_back_in_order(run):
    for step in (1, 2):
        run.append_metrics({"step": step, "reward/mean": step / 2})
    assert run.read_metrics() == [{"step": 1, "reward/mean": 0.5}, {"step": 2, "reward/mean": 1.0}]


def test_json_is_strict_for_all_numbers(run):
    run.append_metrics({"step": 1, "loss/token": float("nan"), "nested": [float("inf"), 1.0]})
    line = run.metrics_path.read_text()
    assert json.loads(line, parse_constant=pytest.fail) == {"step": 1, "loss/token": None, "nested": [None, 1.0]}
    run.write_summary({"accuracy_after": float("nan")})
    assert run.read_summary() == {"accuracy_after": None}


def test_metrics_without_a_step_raise_a_type_error(run):
    with pytest.raises(TypeError, match="step"):
        run.append_metrics({"reward/mean": 1.0})


def test_rollouts_by_step_and_all(run):
    run.write_rollouts(10, [{"step": 10, "completion": "ten"}])
    run.write_rollouts(9, ({"step": 9, "completion": text} for text in ("line\nbreak\u2028", "日本")))
    assert run.rollout_steps() == [9, 10]
    assert [record["completion"] for record in run.read_rollouts(9)] == ["line\nbreak\u2028", "日本"]
    assert [record["step"] for record in run.read_rollouts()] == [9, 9, 10]
    run.write_rollouts(9, [])
    assert list(run.read_rollouts(9)) == []


def test_rollouts_of_a_missing_step(run):
    run.write_rollouts(3, [{"step": 3}])
    with pytest.raises(UserError, match="step 4; it has steps 3 to 3"):
        run.read_rollouts(4)


def test_rollouts_are_written_atomically(run):
    def dies():
        yield {"step": 1}
        raise RuntimeError("killed")

    with pytest.raises(RuntimeError):
        run.write_rollouts(1, dies())
    assert list(run.rollouts_dir.iterdir()) == []


def test_summary_is_none_until_written_and_replaced_atomically(run):
    run.append_metrics({"step": 1})
    assert run.read_summary() is None
    run.write_summary({"accuracy_before": 0.4, "n_heldout": 500})
    run.write_summary({"accuracy_before": 0.5})
    assert run.read_summary() == {"accuracy_before": 0.5}
    assert sorted(path.name for path in run.path.iterdir()) == ["metrics.jsonl", "summary.json"]


def test_latest_checkpoint_is_by_number_and_complete(run):
    assert run.latest_checkpoint() is None
    for name in ("step-9", "step-10", ".step-11.tmp", "step-x"):
        (run.checkpoints_dir / name).mkdir(parents=True)
    (run.checkpoints_dir / "step-12").write_text("a file, not a checkpoint")
    assert run.latest_checkpoint() == run.checkpoint_path(10)


def test_an_incomplete_last_row_is_not_read(run):
    run.append_metrics({"step": 1})
    with run.metrics_path.open("a") as file:
        file.write('{"step": 2, "reward/me')
    assert run.read_metrics() == [{"step": 1}]


def test_truncate_after_drops_later_steps_and_an_incomplete_row(run):
    for step in (1, 2, 3):
        run.append_metrics({"step": step})
        run.write_rollouts(step, [{"step": step}])
    with run.metrics_path.open("a") as file:
        file.write('{"step": 4')
    run.truncate_after(2)
    assert [row["step"] for row in run.read_metrics()] == [1, 2]
    assert run.rollout_steps() == [1, 2]
    run.append_metrics({"step": 3})  # starts on a new line
    assert [row["step"] for row in run.read_metrics()] == [1, 2, 3]


def test_truncate_after_at_zero_and_without_files(run):
    run.truncate_after(0)
    run.append_metrics({"step": 1})
    run.truncate_after(0)
    assert run.read_metrics() == []


@pytest.mark.parametrize("read", ["read_metrics", "read_rollouts", "read_summary"])
def test_a_folder_without_a_run_is_a_user_error(tmp_path, read):
    for path, words in ((tmp_path / "nowhere", "no such run directory"), (tmp_path, "holds no run")):
        with pytest.raises(UserError, match=words) as caught:
            getattr(RunDir(path), read)()
        message = str(caught.value)
        assert str(path) in message and "ouro-rl train" in message
        assert len(message.splitlines()) <= 2


def test_errors_name_a_damaged_file_and_its_line(run):
    run.append_metrics({"step": 1})
    with run.metrics_path.open("a") as file:
        file.write("oops\n")
    with pytest.raises(UserError, match=r"metrics\.jsonl, line 2: not JSON"):
        run.read_metrics()
    run.summary_path.write_text("[1]")
    with pytest.raises(UserError, match="is not a JSON object"):
        run.read_summary()


def test_it_does_not_import_torch():
    code = (
        "import sys, ouro_rl.run_dir.run_dir, ouro_rl.training.rollout_metrics, ouro_rl.run_dir.report.page\n"
        "assert not {'torch', 'matplotlib'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=HANG_S)


@pytest.mark.parametrize("size", [1, 10, 100_000])
def test_the_last_row_is_read_from_the_end(tmp_path, size):
    run = RunDir(tmp_path)
    assert run.last_metrics() == {}
    for step in (1, 2):
        run.append_metrics({"step": step, "text": "x" * size})
        assert run.last_metrics() == {"step": step, "text": "x" * size} == run.read_metrics()[-1]
