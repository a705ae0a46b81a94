"""What others need to load a checkpoint is in its folder, and nothing that fails them."""

from __future__ import annotations

import json
import os
import re
import shutil
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedConfig

from ouro_rl.model.checkpoint import load_policy
from ouro_rl.model.checkpoint_contract import PublishedCode, complete_checkpoint, published_code
from ouro_rl.model.export import export_checkpoint
from ouro_rl.model.model_card import model_card
from ouro_rl.model.modeling_ouro import OuroForCausalLM
from tests.references.places import CONFIGS
from tests.references.published_code import AUTO_MAP, add_code

GATE = "model.early_exit_gate."


@pytest.fixture
def with_code(tmp_path: Path, random_checkpoint: Path) -> Path:
    folder = Path(shutil.copytree(random_checkpoint, tmp_path / "with_code"))
    add_code(folder)
    return folder


def keeps_the_contract(folder: Path, *, code: bool = False) -> None:
    config = json.loads((folder / "config.json").read_text())
    assert config["use_cache"] is True and config["architectures"] == ["OuroForCausalLM"]
    assert config.get("auto_map") == (AUTO_MAP if code else None)
    assert json.loads((folder / "generation_config.json").read_text())["use_cache"] is True
    tokenizer = json.loads((folder / "tokenizer_config.json").read_text())
    assert tokenizer["tokenizer_class"] == "PreTrainedTokenizerFast" and tokenizer["padding_side"] == "left"
    assert tokenizer["model_input_names"] == ["input_ids", "attention_mask"], "all that `generate(**inputs)` takes"
    assert not {"backend", "extra_special_tokens", "auto_map", "is_local"} & tokenizer.keys()
    card = (folder / "README.md").read_text()
    assert card.startswith("---\nlibrary_name: transformers\n") and "import ouro_rl" in card
    assert ("trust_remote_code=True" if code else "get_class_from_dynamic_module") in card
    assert all(file.stat().st_mode & 0o777 == 0o644 for file in folder.iterdir())


def examples_of(folder: Path) -> list[str]:
    """The programs that a card shows."""
    return re.findall(r"```python\n(.*?)```", (folder / "README.md").read_text(), re.DOTALL)


def run_example(program: str, folder: Path) -> dict[str, Any]:
    """Run by itself, with what the card says of `folder` and nothing else."""
    names: dict[str, Any] = {"folder": str(folder)}
    exec(program, names)
    return names


@pytest.fixture(autouse=True)
def umask():
    before = os.umask(0o022)
    yield
    os.umask(before)


@pytest.mark.parametrize("name", ["tiny_ouro", "tiny_code_ouro", "hops_ouro", "walks_ouro"])
def test_our_own_checkpoints(name: str) -> None:
    keeps_the_contract(CONFIGS / name)


def test_code_is_carried_along_or_auto_map_is_dropped(tmp_path: Path, with_code: Path) -> None:
    code = published_code(str(with_code))
    assert code.auto_map == AUTO_MAP and code.files.keys() == {"configuration_ouro.py", "modeling_ouro.py"}
    export_checkpoint(str(with_code), tmp_path / "a", dtype="float32", code=code, card="x")
    by_code = AutoModelForCausalLM.from_pretrained(tmp_path / "a", trust_remote_code=True)
    assert torch.equal(by_code.lm_head.weight, load_policy(str(with_code), torch.float32)[0].lm_head.weight)
    (with_code / "configuration_ouro.py").unlink()  # which modeling_ouro.py imports
    assert published_code(str(with_code)) == PublishedCode()
    export_checkpoint(str(with_code), tmp_path / "b", dtype="float32", code=PublishedCode(), card="x")
    assert "auto_map" not in json.loads((tmp_path / "b" / "config.json").read_text())


@pytest.mark.parametrize("has_code", [True, False])
def test_every_example_of_the_card_runs_by_itself(tmp_path: Path, with_code: Path, has_code: bool) -> None:
    out, weights = tmp_path / "out", load_policy(str(with_code), torch.float32)[0].state_dict()
    code = published_code(str(with_code)) if has_code else PublishedCode()
    export_checkpoint(str(with_code), out, dtype="float32", code=code, card=model_card("x", [], has_code=has_code))
    for name in ("configuration_ouro.py", "modeling_ouro.py"):  # as the card asks for
        shutil.copy(with_code / name, out)
    ours, published = (run_example(program, out) for program in examples_of(out))
    assert isinstance(ours["model"], OuroForCausalLM)
    # In this process the model type is registered, so that the Auto class takes ours with `trust_remote_code`, too.
    assert isinstance(published["model"], OuroForCausalLM) == has_code
    for names in (ours, published):
        assert torch.equal(names["model"].lm_head.weight, weights["lm_head.weight"])
        assert names["tokenizer"]("1+1").keys() == {"input_ids", "attention_mask"}


def test_what_training_leaves_in_the_files_is_put_right(tmp_path: Path, random_checkpoint: Path) -> None:
    model, tokenizer = load_policy(str(random_checkpoint), torch.float32)
    model.config.use_cache = model.generation_config.use_cache = False
    model.config.auto_map = {"AutoConfig": "gone.OuroConfig"}
    model.save_pretrained(tmp_path)
    assert (tmp_path / "model.safetensors").stat().st_mode & 0o077 == 0, "safetensors writes for its owner alone"
    complete_checkpoint(tmp_path, tokenizer, PublishedCode(), "a card")
    assert json.loads((tmp_path / "config.json").read_text()).keys().isdisjoint({"auto_map", "rope_scaling"})
    assert json.loads((tmp_path / "config.json").read_text())["use_cache"] is True
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        PreTrainedConfig.from_json_file(tmp_path / "config.json")  # as a resumed trainer does
    assert (tmp_path / "model.safetensors").stat().st_mode & 0o777 == 0o644
    os.umask(0o027)
    (tmp_path / "README.md").unlink()
    complete_checkpoint(tmp_path, tokenizer, PublishedCode(), "a card")
    assert (tmp_path / "model.safetensors").stat().st_mode & 0o777 == 0o640


def test_bf16_weights_with_a_gate_in_fp32(tmp_path: Path, random_checkpoint: Path) -> None:
    export_checkpoint(str(random_checkpoint), tmp_path / "out", dtype="bfloat16", code=PublishedCode(), card="x")
    before, after = (load_file(folder / "model.safetensors") for folder in (random_checkpoint, tmp_path / "out"))
    for name, tensor in before.items():
        assert torch.equal(after[name], tensor if name.startswith(GATE) else tensor.bfloat16()), name
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    assert model.dtype == torch.bfloat16 and model.model.early_exit_gate.weight.dtype == torch.float32
    ids = AutoTokenizer.from_pretrained(tmp_path / "out")("1+1", return_tensors="pt")
    assert model.generate(**ids, max_new_tokens=2, do_sample=False).shape[1] == ids["input_ids"].shape[1] + 2
