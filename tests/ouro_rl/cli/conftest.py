"""A working directory for the command line."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest


@pytest.fixture
def folder(tmp_path: Path, random_checkpoint: Path) -> Path:
    """A working directory with valid files of every kind and some invalid ones."""
    (tmp_path / "good.yaml").write_text("model: {path: good}\ntrainer: {steps: 2}\n")
    (tmp_path / "broken.yaml").write_text("model: {path: good\n")
    (tmp_path / "warm.yaml").write_text("stage_one: {steps: 1}\nstage_two: {steps: 1}\noutput: out\n")
    (tmp_path / "empty.jsonl").write_text("\n")
    (tmp_path / "rows.jsonl").write_text(
        json.dumps({"problem": "1+1", "answer": "2", "completion": "\\boxed{2}"}) + "\n"
    )
    (tmp_path / "text.jsonl").write_text("not json\n")
    (tmp_path / "deep.jsonl").write_text('{"completion": ' + 100_000 * "[" + 100_000 * "]" + "}\n")
    (tmp_path / "digits.jsonl").write_text('{"completion": ' + 5000 * "9" + "}\n")
    (tmp_path / "texts.jsonl").write_text('{"completion": ["x"], "answer": "1"}\n')
    (tmp_path / "reward.py").write_text("import nothing_of_this_name\n")
    (tmp_path / "folder").mkdir()
    shutil.copytree(random_checkpoint, tmp_path / "good")
    shutil.copytree(random_checkpoint, tmp_path / "no_weights")
    (tmp_path / "no_weights" / "model.safetensors").unlink()
    shutil.copytree(random_checkpoint, tmp_path / "no_config")
    (tmp_path / "no_config" / "config.json").unlink()
    shutil.copytree(random_checkpoint, tmp_path / "misfit")
    config = json.loads((tmp_path / "misfit" / "config.json").read_text())
    (tmp_path / "misfit" / "config.json").write_text(json.dumps({**config, "intermediate_size": 64}))
    shutil.copytree(random_checkpoint, tmp_path / "llama")
    (tmp_path / "llama" / "config.json").write_text(json.dumps({**config, "model_type": "llama"}))
    return tmp_path
