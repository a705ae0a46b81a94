"""`ouro-rl export` on a run, a checkpoint and what is neither."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
import yaml
from huggingface_hub import ModelCard

from ouro_rl.cli import main as cli
from ouro_rl.config.loader import dump_config, load_config
from ouro_rl.config.train import TrainConfig
from ouro_rl.model.checkpoint import load_policy
from tests.ouro_rl.model.test_checkpoint_contract import keeps_the_contract
from tests.references.published_code import add_code


@pytest.fixture
def run(tmp_path: Path, random_checkpoint: Path) -> Path:
    """A run folder with two checkpoints, as training leaves it."""
    folder = tmp_path / "secret" / "run"
    for step in (1, 2):
        shutil.copytree(random_checkpoint, folder / "checkpoints" / f"step-{step}")
        (folder / "checkpoints" / f"step-{step}" / "trainer_state.json").write_text(json.dumps({"global_step": step}))
        (folder / "checkpoints" / f"step-{step}" / "optimizer.pt").write_bytes(b"big")
    settings = [f"model.path={tmp_path / 'secret' / 'base'}", "trainer.steps=2", f"run.dir={folder}"]
    settings += [f"data.source={tmp_path / 'secret' / 'rows.csv'}", "data.prompt_suffix=Go"]
    (folder / "config.yaml").write_text(dump_config(load_config(TrainConfig, [], settings)))
    (folder / "metrics.jsonl").write_text('{"step": 1, "reward/mean": 0.25}\n{"step": 2, "reward/mean": 0.5}\n')
    figures = {"accuracy_before": 0.1, "depth_before": 3.0, "accuracy_after": 0.8, "depth_after": 2.0}
    (folder / "summary.json").write_text(json.dumps(figures | {"n_heldout": 500, "steps": 2}))
    return folder


def test_the_last_checkpoint_of_a_run(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    assert cli.main(["export", str(run), "--out", str(out), "--dtype", "bfloat16"]) == 0
    assert f"exported: {out}, from {run / 'checkpoints' / 'step-2'}" in capsys.readouterr().out
    keeps_the_contract(out)
    expected = {"README.md", "chat_template.jinja", "config.json", "config.yaml", "generation_config.json"}
    assert {file.name for file in out.iterdir()} == expected | {
        "model.safetensors", "tokenizer.json", "tokenizer_config.json",
    }  # fmt: skip
    card = (out / "README.md").read_text()
    for part in ("reward, last update | 0.5 |", "80.0% of 500 problems, at 2.00", "updates | 2 of 2 |", "bfloat16"):
        assert part in card
    assert ModelCard(card).data.to_dict()["library_name"] == "transformers"
    assert all("secret" not in file.read_text() for file in out.iterdir() if file.suffix != ".safetensors")
    assert yaml.safe_load((out / "config.yaml").read_text())["data"]["source"] == "rows.csv"
    assert load_config(TrainConfig, [out / "config.yaml"]).data.prompt_suffix == "Go", "eval asks in this format"


def test_an_earlier_checkpoint_has_its_own_figures(run: Path, tmp_path: Path) -> None:
    assert cli.main(["export", str(run / "checkpoints" / "step-1"), "--out", str(tmp_path / "out")]) == 0
    card = (tmp_path / "out" / "README.md").read_text()
    assert "| reward, last update | 0.25 |" in card and "before training" in card and "after training" not in card


def test_a_run_of_epochs(run: Path, tmp_path: Path) -> None:
    config = load_config(TrainConfig, [run / "config.yaml"], ["trainer.steps=null", "trainer.epochs=0.5"])
    (run / "config.yaml").write_text(dump_config(config))
    assert cli.main(["export", str(run), "--out", str(tmp_path / "out")]) == 0
    assert "updates | 2, in a run of 0.5 epochs |" in (tmp_path / "out" / "README.md").read_text()
    assert cli.main(["export", str(tmp_path / "out"), "--out", str(tmp_path / "again")]) == 0
    assert "updates" not in (tmp_path / "again" / "README.md").read_text(), "nothing says how many there were"


def test_the_best_weights_of_a_run(run: Path, tmp_path: Path) -> None:
    best = Path(shutil.copytree(run / "checkpoints" / "step-1", run / "best"))
    (best / "trainer_state.json").unlink()
    (best / "evaluation.json").write_text('{"step": 1}')
    assert cli.main(["export", str(best), "--out", str(tmp_path / "out")]) == 0
    assert "reward, last update | 0.25 |" in (tmp_path / "out" / "README.md").read_text()


def test_a_checkpoint_of_no_run_with_code_from_elsewhere(
    tmp_path: Path, random_checkpoint: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    published = Path(shutil.copytree(random_checkpoint, tmp_path / "published"))
    arguments = ["export", str(random_checkpoint), "--code", str(published), "--out", str(tmp_path / "out")]
    assert cli.main(arguments) == 2
    assert "has no modeling code" in capsys.readouterr().err and not (tmp_path / "out").exists()
    add_code(published)
    assert cli.main(arguments) == 0
    keeps_the_contract(tmp_path / "out", code=True)
    again, original = (load_policy(str(path), torch.float32)[0] for path in (tmp_path / "out", random_checkpoint))
    assert all(torch.equal(again.state_dict()[name], tensor) for name, tensor in original.state_dict().items())


def test_what_cannot_be_exported(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "empty").mkdir()
    for source, out, part in (
        (tmp_path / "gone", tmp_path / "o", "no such folder"),
        (tmp_path / "empty", tmp_path / "o", "holds no checkpoint"),
        (run, run, "is not an empty folder"),
    ):
        assert cli.main(["export", str(source), "--out", str(out)]) == 2
        assert part in capsys.readouterr().err
