"""The decisions of evaluation during training, and whole runs with it."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file

from ouro_rl.evaluation.evaluate import evaluate
from ouro_rl.launch import run_training
from ouro_rl.model.checkpoint import load_policy
from ouro_rl.training.periodic_evaluation import best_of, is_stalled
from tests.integration.conftest import checkpoint  # noqa: F401 (a fixture)
from tests.references.tiny_training import config_of, deterministic, metrics_of


def test_the_best_is_the_first_of_equals():
    assert best_of([(0, 0.5), (2, 0.7), (4, 0.7), (6, 0.6)]) == (2, 0.7)


@pytest.mark.parametrize(
    ("accuracies", "patience", "stalled"),
    [
        ([], 1, False), ([0.5], 1, False), ([0.5, 0.5], 1, True), ([0.5, 0.6], 1, False), ([0.5, 0.6, 0.6], 2, False),
        ([0.5, 0.6, 0.4, 0.6], 2, True), ([0.5, 0.4, 0.3, 0.6], 2, False), ([0.5, 0.4, 0.3], None, False),
    ],
)  # fmt: skip
def test_a_run_is_stalled_after_so_many_evaluations_without_a_better_one(accuracies, patience, stalled):
    assert is_stalled(list(enumerate(accuracies)), patience) == stalled


@pytest.fixture
def accuracies(monkeypatch):
    """Lets evaluations return accuracies from this list, with everything else as it is."""
    given: list[float] = []

    def scripted(*arguments, **options):
        row = evaluate(*arguments, **options)
        return type(row)(**{**vars(row), "accuracy": given.pop(0)})

    monkeypatch.setattr("ouro_rl.launch.evaluate", scripted)
    return given


def test_evaluation_during_training_changes_nothing_and_is_that_of_eval(checkpoint, tmp_path):  # noqa: F811
    """With batches that are used twice, so that an evaluation falls between two updates of one batch."""
    plain = config_of(checkpoint, tmp_path / "plain", trainer__steps=4, trainer__updates_per_batch=2)
    often = config_of(checkpoint, tmp_path / "often", trainer__steps=4, trainer__updates_per_batch=2, eval__every=1)
    for config in (plain, often):
        assert run_training(config, resume=False) == 0
    rows = metrics_of(tmp_path / "often")
    for ours, theirs in zip(rows, metrics_of(tmp_path / "plain"), strict=True):
        with_evaluation = {key for key in ours if key.startswith("eval/")}
        assert with_evaluation == {"eval/accuracy", "eval/depth", "eval/length", "eval/cut_off"}
        assert {k: v for k, v in deterministic(ours).items() if k not in with_evaluation} == deterministic(theirs)
    ours, theirs = (json.loads((tmp_path / name / "summary.json").read_text()) for name in ("often", "plain"))
    assert ours["eval_after"] == theirs["eval_after"] and rows[-1]["eval/depth"] == ours["depth_after"]


def test_the_best_weights_are_kept_and_a_stalled_run_stops(checkpoint, tmp_path, accuracies, capsys):  # noqa: F811
    folder = tmp_path / "run"
    config = config_of(
        checkpoint, folder, trainer__steps=9, trainer__checkpoint_every=1, trainer__keep_checkpoints=9,
        eval__every=1, eval__patience=2,
    )  # fmt: skip
    accuracies += [0.2, 0.1, 0.5, 0.5, 0.4]
    assert run_training(config, resume=False) == 0 and not accuracies, "the last evaluation is not made again"
    assert [row["eval/accuracy"] for row in metrics_of(folder)] == [0.1, 0.5, 0.5, 0.4]
    summary = json.loads((folder / "summary.json").read_text())
    assert (summary["best_step"], summary["best_accuracy"], summary["accuracy_after"]) == (2, 0.5, 0.4)
    assert f"best                 50.0% after update 2, kept in {folder / 'best'}" in capsys.readouterr().out
    best, second = (load_file(path / "model.safetensors") for path in (folder / "best", folder / "checkpoints/step-2"))
    assert all(torch.equal(best[name], second[name]) for name in second)
    assert json.loads((folder / "best/evaluation.json").read_text())["step"] == 2
    load_policy(str(folder / "best"), torch.float32)
    accuracies += [0.3]
    assert run_training(config, resume=True) == 0 and len(metrics_of(folder)) == 4, "it stays stopped"


def test_a_resumed_run_remembers_the_evaluations_before(checkpoint, tmp_path, accuracies):  # noqa: F811
    def config(folder, steps):
        return config_of(checkpoint, folder, trainer__steps=steps, eval__every=1, eval__patience=2)

    accuracies += [0.2, 0.6, 0.1]
    assert run_training(config(tmp_path / "run", 2), resume=False) == 0
    shutil.copytree(tmp_path / "run" / "best", tmp_path / "best")
    accuracies += [0.3]
    assert run_training(config(tmp_path / "run", 9), resume=True) == 0 and not accuracies
    assert [row["step"] for row in metrics_of(tmp_path / "run")] == [1, 2, 3]
    ours, theirs = (load_file(path / "best" / "model.safetensors") for path in (tmp_path / "run", tmp_path))
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_the_best_weights_are_of_the_line_that_was_resumed(checkpoint, tmp_path, accuracies, capsys):  # noqa: F811
    """After a kill, the run goes back to a checkpoint from before its best evaluation, and never gets there again."""

    def config(steps):
        return config_of(
            checkpoint, tmp_path / "run", trainer__steps=steps, eval__every=1,
            trainer__checkpoint_every=1, trainer__keep_checkpoints=9,
        )  # fmt: skip

    accuracies += [0.2, 0.5, 0.9]
    assert run_training(config(2), resume=False) == 0
    shutil.rmtree(tmp_path / "run" / "checkpoints" / "step-2")
    accuracies += [0.3, 0.4]
    assert run_training(config(3), resume=True) == 0 and not accuracies
    assert "best: dropped; the run as resumed has no such evaluation after update 2" in capsys.readouterr().out
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert (summary["best_step"], summary["best_accuracy"]) == (3, 0.4), "those of update 1 are gone"
    best, third = (load_file(tmp_path / "run" / at / "model.safetensors") for at in ("best", "checkpoints/step-3"))
    assert all(torch.equal(best[name], third[name]) for name in third)


def test_evaluations_of_another_kind_are_not_compared_with(checkpoint, tmp_path, accuracies):  # noqa: F811
    """The first three were on easier problems: they neither stop the run, nor are the best of it."""

    def config(steps, **changes):
        return config_of(checkpoint, tmp_path / "run", trainer__steps=steps, eval__every=1, eval__patience=2, **changes)

    accuracies += [0.2, 0.9, 0.9]
    assert run_training(config(2), resume=False) == 0
    harder = {"eval__limit": 4}
    accuracies += [0.1, 0.2, 0.2]
    assert run_training(config(4, **harder), resume=True) == 0 and not accuracies
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert (summary["accuracy_before"], summary["best_step"], summary["best_accuracy"]) == (0.1, 3, 0.2)
    assert json.loads((tmp_path / "run" / "best" / "evaluation.json").read_text())["step"] == 3
    accuracies += [0.2]
    assert run_training(config(9, **harder), resume=True) == 0 and not accuracies, "these are compared"
    assert [row["step"] for row in metrics_of(tmp_path / "run")] == [1, 2, 3, 4, 5]
