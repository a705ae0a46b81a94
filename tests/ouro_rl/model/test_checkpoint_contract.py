"""What others need to load a checkpoint is in its folder, and nothing that fails them."""

from __future__ import annotations

import json
import os
import shutil
import warnings
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedConfig
from transformers.dynamic_module_utils import get_class_from_dynamic_module

from ouro_rl.model.checkpoint import load_policy
from ouro_rl.model.checkpoint_contract import PublishedCode, complete_checkpoint, published_code
from ouro_rl.model.export import export_checkpoint
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
    assert not {"backend", "extra_special_tokens", "auto_map", "is_local"} & tokenizer.keys()
    card = (folder / "README.md").read_text()
    assert card.startswith("---\nlibrary_name: transformers\n") and "import ouro_rl" in card
    assert ("trust_remote_code=True" if code else "get_class_from_dynamic_module") in card
    assert all(file.stat().st_mode & 0o777 == 0o644 for file in folder.iterdir())


@pytest.fixture(autouse=True)
def umask():
    before = os.umask(0o022)
    yield
    os.umask(before)


@pytest.mark.parametrize("name", ["tiny_ouro", "tiny_code_ouro", "hops_ouro"])
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


def test_the_way_that_the_card_shows_without_code(tmp_path: Path, with_code: Path) -> None:
    export_checkpoint(str(with_code), tmp_path / "out", dtype="float32", code=PublishedCode(), card="x")
    for name in ("configuration_ouro.py", "modeling_ouro.py"):
        shutil.copy(with_code / name, tmp_path / "out")
    cls = get_class_from_dynamic_module("modeling_ouro.OuroForCausalLM", str(tmp_path / "out"))
    model = cls.from_pretrained(tmp_path / "out")
    assert torch.equal(model.lm_head.weight, load_policy(str(with_code), torch.float32)[0].lm_head.weight)


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
