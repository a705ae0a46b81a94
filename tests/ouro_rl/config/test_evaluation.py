"""Which config an evaluation uses."""

from __future__ import annotations

from pathlib import Path

import pytest

from ouro_rl.config.evaluation import LONG_ANSWER, config_of_run, evaluation_config
from ouro_rl.config.loader import dump_config, load_config
from ouro_rl.config.train import TrainConfig
from ouro_rl.core.errors import UserError


@pytest.fixture
def run(tmp_path: Path) -> Path:
    (tmp_path / "rows.csv").write_text("q,a\n1,1\n")
    settings = ["model.path=m", "trainer.steps=1", "data.prompt_suffix=Go", "eval.limit=7", "eval.operations=[9]"]
    settings += [f"eval.source={tmp_path / 'rows.csv'}", "eval.question_column=q", "eval.max_new_tokens=99"]
    folder = tmp_path / "run"
    (folder / "checkpoints" / "step-4").mkdir(parents=True)
    (folder / "config.yaml").write_text(dump_config(load_config(TrainConfig, [], settings)) + "about: {commit: x}\n")
    return folder


def test_the_config_is_found_above_and_beside_a_checkpoint(run: Path, tmp_path: Path) -> None:
    checkpoint = run / "checkpoints" / "step-4"
    assert config_of_run(str(checkpoint)) == config_of_run(str(run / "best")) == run / "config.yaml"
    for other in ("org/name", str(run / "checkpoints"), str(tmp_path / "elsewhere" / "step-4")):
        assert config_of_run(other) is None
    (checkpoint / "config.yaml").write_text("optimizer: {lr: 1}\n")
    assert config_of_run(str(checkpoint)) == run / "config.yaml", "another project's file of this name"
    (checkpoint / "config.yaml").write_text((run / "config.yaml").read_text())
    assert config_of_run(str(checkpoint)) == checkpoint / "config.yaml"


@pytest.mark.parametrize("damage", [b"model: [", b"\xff\xfe\x00"])
def test_a_runs_config_that_cannot_be_read_is_no_plain_checkpoint(run: Path, damage: bytes) -> None:
    (run / "config.yaml").write_bytes(damage)
    with pytest.raises(UserError, match="config.yaml: cannot be read: .*\n  restore the file"):
        evaluation_config(str(run / "checkpoints" / "step-4"), [], "arithmetic")


def test_limits_and_columns_belong_to_the_runs_own_problems(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for benchmark in (None, "rows.csv", str(tmp_path / "rows.csv")):
        config, origin = evaluation_config(str(run / "checkpoints/step-4"), [], benchmark)
        assert (config.eval.limit, config.eval.question_column) == (7, "q") and origin == str(run / "config.yaml")
    other, _ = evaluation_config(str(run / "checkpoints/step-4"), [], "math500")
    assert (other.eval.source, other.eval.limit, other.eval.question_column) == ("math500", None, None)
    assert other.eval.operations == (2, 3, 4)
    assert (other.data.prompt_suffix, other.eval.max_new_tokens) == ("Go", 99), "one prompt format per run"


def test_without_a_run() -> None:
    config, origin = evaluation_config("org/name", [], "math500")
    assert origin is None and "boxed" in config.data.prompt_suffix and config.eval.max_new_tokens == LONG_ANSWER
    assert evaluation_config("org/name", [], "arithmetic")[0].data.prompt_suffix == ""
    with pytest.raises(UserError, match="--benchmark is missing"):
        evaluation_config("org/name", [], None)
