"""Checks that a checkpoint folder is complete, from file names and headers only: fast, without torch."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ouro_rl.core.errors import UserError
from ouro_rl.core.hub import check_on_hub
from ouro_rl.core.paths import is_local

OURO_LOOPS = 4
"""Loops of a checkpoint whose config does not name them: of all published ones."""
_LONGEST_HEADER = 100 * 2**20
"""Bytes: the limit of the safetensors format."""


def check_model(path: str, *, key: str, revision: str | None = None) -> None:
    """Raise UserError unless `path` is a complete local checkpoint (config, weights, tokenizer) or a valid hub id.

    `key` is the config key that errors name; `revision` is that of a hub id."""
    if not is_local(path):
        check_on_hub(path, "model", key, revision)
        return
    if revision is not None:
        raise UserError(f"{key} {path}: is a folder, which has no revision {revision}; leave the revision out")
    folder = Path(path)
    if not folder.exists():
        raise UserError(
            f"{key} {path}: no such folder; give the folder of a checkpoint, or a hub id such as ByteDance/Ouro-1.4B"
        )
    if not folder.is_dir():
        raise UserError(f"{key} {path}: is a file; give the folder that contains it")
    config = _read_json(folder / "config.json", f"{key} {path}", "the folder of a checkpoint has one")
    if config.get("model_type") != "ouro":
        raise UserError(
            f"{key} {path}: model_type is {config.get('model_type')!r} in config.json; "
            "only `ouro` models have loops to train"
        )
    weights = weight_files(folder, f"{key} {path}")
    if not any((folder / name).exists() for name in ("tokenizer.json", "tokenizer_config.json", "vocab.json")):
        raise UserError(f"{key} {path}: has no tokenizer (tokenizer.json); copy the tokenizer's files into the folder")
    if all(file.suffix == ".safetensors" for file in weights):
        _check_shapes(folder, config, weights, f"{key} {path}")


def trained_loops(path: str) -> int | None:
    """The loops that a local checkpoint was trained with; None for a hub id. `check_model` must have passed."""
    if not is_local(path):
        return None
    return _read_json(Path(path) / "config.json", path, "").get("total_ut_steps", OURO_LOOPS)


def weight_files(folder: Path, name: str) -> list[Path]:
    """The weight files of a checkpoint. Raises UserError if there are none or if a part of several is missing."""
    for pattern in ("model.safetensors", "pytorch_model.bin"):
        if (folder / pattern).exists():
            return [folder / pattern]
    for index in ("model.safetensors.index.json", "pytorch_model.bin.index.json"):
        if (folder / index).exists():
            parts = sorted(
                set(_read_json(folder / index, name, "it lists the weight files").get("weight_map", {}).values())
            )
            if missing := [part for part in parts if not (folder / part).exists()]:
                raise UserError(
                    f"{name}: {missing[0]} is missing, which {index} names; copy or download the checkpoint again"
                )
            if parts:
                return [folder / part for part in parts]
    have = ", ".join(sorted(file.name for file in folder.iterdir())[:6]) or "nothing"
    raise UserError(
        f"{name}: holds no weights (model.safetensors, its index with parts, or pytorch_model.bin), only {have};\n"
        "  give the folder of a saved checkpoint"
    )


def expected_shapes(config: dict[str, Any]) -> dict[str, tuple[int, ...]]:
    """Tensor shapes by published name, according to a config.json. Raises KeyError if it lacks a size."""
    hidden, middle, vocab = config["hidden_size"], config["intermediate_size"], config["vocab_size"]
    heads = config["num_attention_heads"]
    head = config.get("head_dim") or hidden // heads
    pairs = config.get("num_key_value_heads") or heads
    layer = {
        "self_attn.q_proj": (heads * head, hidden),
        "self_attn.k_proj": (pairs * head, hidden),
        "self_attn.v_proj": (pairs * head, hidden),
        "self_attn.o_proj": (hidden, heads * head),
        "mlp.gate_proj": (middle, hidden),
        "mlp.up_proj": (middle, hidden),
        "mlp.down_proj": (hidden, middle),
        "input_layernorm": (hidden,),
        "input_layernorm_2": (hidden,),
        "post_attention_layernorm": (hidden,),
        "post_attention_layernorm_2": (hidden,),
    }
    shapes: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (vocab, hidden)}
    for index in range(config["num_hidden_layers"]):
        shapes |= {f"model.layers.{index}.{name}.weight": shape for name, shape in layer.items()}
    shapes |= {"model.norm.weight": (hidden,)}
    shapes |= {"model.early_exit_gate.weight": (1, hidden), "model.early_exit_gate.bias": (1,)}
    return shapes if config.get("tie_word_embeddings") else shapes | {"lm_head.weight": (vocab, hidden)}


def _check_shapes(folder: Path, config: dict[str, Any], weights: list[Path], name: str) -> None:
    try:
        expected = expected_shapes(config)
    except KeyError as error:
        raise UserError(f"{name}: config.json has no {error}; copy the config of these weights") from None
    except (TypeError, ZeroDivisionError, ValueError) as error:
        raise UserError(
            f"{name}: config.json has a size that is not a positive integer ({error});\n"
            "  copy the config of these weights"
        ) from None
    found: dict[str, tuple[int, ...]] = {}
    for file in weights:
        found |= _safetensors_shapes(file, name)
    wrong = {tensor: (found[tensor], shape) for tensor, shape in expected.items() if found.get(tensor, shape) != shape}
    refuse_misfit(name, wrong, expected.keys() - found.keys(), found.keys() - expected.keys())


def refuse_misfit(
    name: str, wrong: dict[str, tuple[tuple[int, ...], tuple[int, ...]]], missing: Iterable[str], surplus: Iterable[str]
) -> None:
    """Raise UserError unless the weights match the config.

    `wrong` by name: (shape in the weights, shape in the config)."""
    # A tied head and the fixed frequencies of RoPE may be stored, but are not needed.
    surplus = [tensor for tensor in surplus if not tensor.endswith((".inv_freq", "lm_head.weight"))]
    problem = ""
    if wrong:
        tensor, (found, expected) = min(wrong.items())
        problem = f"{tensor} has shape {list(found)}, the config expects {list(expected)}"
    elif missing := sorted(missing):
        problem = f"{missing[0]} is missing" + (f", and {len(missing) - 1} more" if len(missing) > 1 else "")
    elif surplus:
        problem = f"the config does not expect {min(surplus)}"
        problem += f", and {len(surplus) - 1} more" if len(surplus) > 1 else ""
    if problem:
        raise UserError(
            f"{name}: the weights do not match config.json:\n  {problem};\n  copy the config of these weights"
        )


def _safetensors_shapes(file: Path, name: str) -> dict[str, tuple[int, ...]]:
    """Shapes by tensor name, from the header of the file: 8 bytes of length, then JSON."""
    try:
        with file.open("rb") as stream:
            (length,) = struct.unpack("<Q", stream.read(8))
            if length > _LONGEST_HEADER:
                raise ValueError("its header is too long")
            header = json.loads(stream.read(length))
        ends = [entry["data_offsets"][1] for tensor, entry in header.items() if tensor != "__metadata__"]
        if file.stat().st_size < 8 + length + max(ends, default=0):
            raise ValueError("its data is truncated")
        return {tensor: tuple(entry["shape"]) for tensor, entry in header.items() if tensor != "__metadata__"}
    except (struct.error, ValueError, KeyError, TypeError, AttributeError):
        raise UserError(
            f"{name}: {file.name} is not a safetensors file, or is truncated; copy or download it again"
        ) from None


def _read_json(path: Path, name: str, why: str) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{name}: has no {path.name}; {why}") from None
    except (OSError, ValueError) as error:
        raise UserError(
            f"{name}: {path.name} cannot be read ({' '.join(str(error).split())}); copy or download it again"
        ) from None
    if not isinstance(value, dict):
        raise UserError(f"{name}: {path.name} is not a JSON object; copy or download it again")
    return value
