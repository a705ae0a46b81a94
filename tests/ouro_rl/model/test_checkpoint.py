"""Loading a policy, and the errors of a broken checkpoint before and during loading."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from ouro_rl.core.errors import UserError
from ouro_rl.model.checkpoint import load_policy
from ouro_rl.model.checkpoint_files import check_model, expected_shapes, is_local
from ouro_rl.model.configuration_ouro import OuroConfig
from ouro_rl.model.modeling_ouro import OuroForCausalLM


@pytest.fixture
def checkpoint(tmp_path: Path, random_checkpoint: Path) -> Path:
    return Path(shutil.copytree(random_checkpoint, tmp_path / "checkpoint"))


def change_config(checkpoint: Path, **values: object) -> None:
    path = checkpoint / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def change_weights(checkpoint: Path, change) -> None:
    weights = load_file(checkpoint / "model.safetensors")
    change(weights)
    save_file(weights, checkpoint / "model.safetensors", metadata={"format": "pt"})


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("pairs", [4, 2])
def test_expected_shapes_are_those_of_the_model(tied: bool, pairs: int) -> None:
    config = OuroConfig(
        vocab_size=20,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=pairs,
        tie_word_embeddings=tied,
    )
    model = OuroForCausalLM(config)
    shapes = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    if tied:
        del shapes["lm_head.weight"]
    assert expected_shapes(config.to_dict()) == shapes


def test_a_policy_is_loaded_with_corrected_special_tokens(checkpoint: Path) -> None:
    change_config(checkpoint, bos_token_id=0, eos_token_id=0, pad_token_id=0, auto_map={"AutoConfig": "evil.Config"})
    check_model(str(checkpoint), key="model.path")
    model, tokenizer = load_policy(str(checkpoint), torch.float32)
    assert model.dtype == torch.float32 and not model.training
    assert (model.config.bos_token_id, model.config.eos_token_id, model.config.pad_token_id) == (1, 2, 0)
    assert model.generation_config.eos_token_id == tokenizer.eos_token_id == 2
    assert load_policy(str(checkpoint), torch.bfloat16)[0].dtype == torch.bfloat16


def drop_gate(weights: dict[str, torch.Tensor]) -> None:
    del weights["model.early_exit_gate.weight"], weights["model.early_exit_gate.bias"]


def add_layer(weights: dict[str, torch.Tensor]) -> None:
    weights["model.layers.2.input_layernorm.weight"] = torch.zeros(32)


def cut_head(weights: dict[str, torch.Tensor]) -> None:
    weights["lm_head.weight"] = weights["lm_head.weight"][:-1].clone()


@pytest.mark.parametrize(
    ("change", "parts"),
    [
        (drop_gate, ["model.early_exit_gate.bias is missing, and 1 more"]),
        (add_layer, ["the config does not expect model.layers.2.input_layernorm.weight"]),
        (cut_head, ["lm_head.weight has shape [262, 32], the config expects [263, 32]"]),
    ],
)
def test_tensors_that_do_not_match_the_config(checkpoint: Path, change, parts: list[str]) -> None:
    """The same message before torch is imported and when the model is loaded (the only check of a hub id)."""
    change_weights(checkpoint, change)
    for look in (
        lambda: check_model(str(checkpoint), key="model"),
        lambda: load_policy(str(checkpoint), torch.float32),
    ):
        with pytest.raises(UserError) as caught:
            look()
        assert len(str(caught.value).splitlines()) <= 3
        for part in [str(checkpoint), *parts]:
            assert part in str(caught.value)


def test_weights_in_parts(checkpoint: Path) -> None:
    OuroForCausalLM.from_pretrained(checkpoint).save_pretrained(checkpoint, max_shard_size="20KB")
    (checkpoint / "model.safetensors").unlink(missing_ok=True)
    parts = sorted(checkpoint.glob("model-*.safetensors"))
    assert len(parts) > 1
    check_model(str(checkpoint), key="model.path")
    parts[0].unlink()
    with pytest.raises(UserError, match=f"{parts[0].name} is missing"):
        check_model(str(checkpoint), key="model.path")


def test_files_that_are_broken(checkpoint: Path) -> None:
    weights = (checkpoint / "model.safetensors").read_bytes()
    for content in (b"", b"text, no tensors", weights[:100]):
        (checkpoint / "model.safetensors").write_bytes(content)
        with pytest.raises(UserError, match="is not a safetensors file"):
            check_model(str(checkpoint), key="model.path")
    (checkpoint / "config.json").write_text("{")
    with pytest.raises(UserError, match="config.json cannot be read"):
        check_model(str(checkpoint), key="model.path")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite(checkpoint: Path, value: float) -> None:
    weights = load_file(checkpoint / "model.safetensors")
    weights["model.norm.weight"][3] = value
    save_file(weights, checkpoint / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(UserError, match=r"model\.norm\.weight is not finite; take an earlier checkpoint"):
        load_policy(str(checkpoint), torch.float32)


def test_other_mistakes(checkpoint: Path) -> None:
    change_config(checkpoint, vocab_size=100)
    with pytest.raises(UserError, match="the tokenizer has 263 tokens, the model only 100"):
        load_policy(str(checkpoint), torch.float32)
    (checkpoint / "tokenizer.json").unlink()
    (checkpoint / "tokenizer_config.json").unlink()
    change_config(checkpoint, vocab_size=263)
    with pytest.raises(UserError, match="has no tokenizer"):
        check_model(str(checkpoint), key="model.path")
    (checkpoint / "model.safetensors").unlink()
    (checkpoint / "pytorch_model.bin").write_bytes(b"")
    with pytest.raises(UserError, match="has no tokenizer"):
        check_model(str(checkpoint), key="model.path")


def test_hub_ids(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "configs").mkdir()
    assert not is_local("ByteDance/Ouro-1.4B")
    assert (
        is_local("configs/typo")
        and is_local("./a/b")
        and is_local("name")
        and is_local("/no/such")
        and is_local("a/b/c")
    )
