"""Is what a config names really there? Checks that need no torch, so that a mistake is told before anything heavy is imported.

Every check raises UserError of at most three lines and says nothing when all is well. What can only be known later (a hub id that
does not exist, a broken file) is told by whoever reads it.
"""

from __future__ import annotations

import json
import re
import struct
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ouro_rl.config import TrainConfig
from ouro_rl.errors import UserError

BENCHMARKS = ("arithmetic", "math500")
_HUB_MODEL = re.compile(r"[\w.-]+/[\w.-]+")
_HUB_DATA = re.compile(r"[\w.-]+(/[\w.-]+)?")
_WHOLE_HEADER = 100 * 2**20
"""Bytes; the safetensors format allows no longer header."""


def check_train_files(config: TrainConfig) -> None:
    """Model, data, evaluation data and rewards of a training job."""
    check_model(config.model.path, key="model.path")
    data = config.data
    check_data(data.source, {"question": data.question_column, "answer": data.answer_column})
    if config.eval.source is not None:
        check_benchmark(config.eval.source, None, key="eval.source")
    check_rewards(config)


def check_rewards(config: TrainConfig) -> None:
    """Every reward can be imported, and no two have the same name in the metrics."""
    from rewards.registry import RewardSpec
    from rewards.scorer import Scorer

    specs = [RewardSpec(**reward.model_dump()) for reward in config.rewards.functions]
    for spec in specs:
        check_reward(spec)
    Scorer(specs).close()


def check_reward(spec: Any) -> None:
    """One reward (a `rewards.registry.RewardSpec`, or its name) can be imported."""
    from rewards.registry import load_reward

    reward = load_reward(spec)
    if close := getattr(reward, "close", None):
        close()


# --- models ------------------------------------------------------------------------------------------------------------


def is_local(path: str) -> bool:
    """Is this a folder rather than a hub id `org/name`? `configs/x` is local wherever there is a folder `configs`."""
    return Path(path).expanduser().exists() or not _HUB_MODEL.fullmatch(path) or Path(path).parent.is_dir()


def check_model(path: str, *, key: str) -> None:
    """A local checkpoint is whole: config, weights of the shapes that it says, tokenizer. A hub id passes unseen."""
    folder = Path(path).expanduser()
    if not is_local(path):
        return
    if not folder.exists():
        raise UserError(
            f"{key} {path}: no such folder; give the folder of a checkpoint, or a hub id such as ByteDance/Ouro-1.4B"
        )
    if not folder.is_dir():
        raise UserError(f"{key} {path}: is a file; give the folder that it stands in")
    config = _read_json(folder / "config.json", f"{key} {path}", "the folder of a checkpoint has one")
    if config.get("model_type") != "ouro":
        raise UserError(
            f"{key} {path}: model_type is {config.get('model_type')!r} in config.json; only `ouro` models have loops to train"
        )
    weights = weight_files(folder, f"{key} {path}")
    if not any((folder / name).exists() for name in ("tokenizer.json", "tokenizer_config.json", "vocab.json")):
        raise UserError(f"{key} {path}: has no tokenizer (tokenizer.json); copy the tokenizer's files into the folder")
    if all(file.suffix == ".safetensors" for file in weights):
        _check_shapes(folder, config, weights, f"{key} {path}")


def weight_files(folder: Path, name: str) -> list[Path]:
    """The files that hold the weights. UserError when there are none, or when one of several is missing."""
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
    """Tensor shapes by published name that a config.json asks for. KeyError when a size is not in it."""
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
        raise UserError(f"{name}: config.json has no {error}; copy the config that belongs to these weights") from None
    found: dict[str, tuple[int, ...]] = {}
    for file in weights:
        found |= _safetensors_shapes(file, name)
    wrong = {tensor: (found[tensor], shape) for tensor, shape in expected.items() if found.get(tensor, shape) != shape}
    refuse_misfit(name, wrong, expected.keys() - found.keys(), found.keys() - expected.keys())


def refuse_misfit(
    name: str, wrong: dict[str, tuple[tuple[int, ...], tuple[int, ...]]], missing: Iterable[str], surplus: Iterable[str]
) -> None:
    """UserError unless every tensor has its place. `wrong` is by name: (shape in the weights, shape that the config asks for)."""
    # A tied head and the fixed frequencies of RoPE may be stored, but nobody needs them.
    surplus = [tensor for tensor in surplus if not tensor.endswith((".inv_freq", "lm_head.weight"))]
    problem = ""
    if wrong:
        tensor, (found, expected) = min(wrong.items())
        problem = f"{tensor} has shape {list(found)}, the config asks for {list(expected)}"
    elif missing := sorted(missing):
        problem = f"{missing[0]} is missing" + (f", and {len(missing) - 1} more" if len(missing) > 1 else "")
    elif surplus:
        problem = f"the config has no place for {min(surplus)}"
        problem += f", and {len(surplus) - 1} more" if len(surplus) > 1 else ""
    if problem:
        raise UserError(
            f"{name}: the weights do not fit config.json:\n  {problem};\n  copy the config that belongs to these weights"
        )


def _safetensors_shapes(file: Path, name: str) -> dict[str, tuple[int, ...]]:
    """Shapes by tensor name, from the file's header alone: 8 bytes of length, then JSON."""
    try:
        with file.open("rb") as stream:
            (length,) = struct.unpack("<Q", stream.read(8))
            if length > _WHOLE_HEADER:
                raise ValueError("its header is too long")
            header = json.loads(stream.read(length))
        return {tensor: tuple(entry["shape"]) for tensor, entry in header.items() if tensor != "__metadata__"}
    except (struct.error, ValueError, KeyError, TypeError, AttributeError):
        raise UserError(
            f"{name}: {file.name} is no safetensors file, or was cut short; copy or download it again"
        ) from None


# --- data --------------------------------------------------------------------------------------------------------------


def check_data(source: str, columns: dict[str, str | None]) -> None:
    """A .jsonl file is there, holds rows, and its first row has the columns (by what they are for, `question` or `answer`)."""
    path, name = Path(source).expanduser(), f"data.source {source}"
    if source.endswith(".jsonl"):
        row = first_row(path, name)
        for use, column in columns.items():
            if column is not None and dotted_value(row, column) is None:
                raise UserError(no_column(name, column, row, use))
    elif source != "arithmetic" and (path.exists() or not _HUB_DATA.fullmatch(source)):
        raise UserError(f"{name}: must be `arithmetic`, a .jsonl file, or a hub data set id such as org/name")


def no_column(name: str, column: str, row: dict[str, Any], use: str) -> str:
    """The message about a row that lacks its question or its answer."""
    other = "" if use == "question" else " (null when no reward needs an answer)"
    return (
        f"{name}: there is no column {column!r}, only {', '.join(row)};\n  set data.{use}_column to one of these{other}"
    )


def check_benchmark(name: str, data_file: Path | None, *, key: str) -> None:
    """A known benchmark or a .jsonl file; the file that is to replace a benchmark's own problems holds rows."""
    if data_file is not None:
        first_row(data_file, str(data_file))
    elif name.endswith(".jsonl"):
        first_row(Path(name), f"{key} {name}")
    if name not in BENCHMARKS and not name.endswith(".jsonl"):
        raise UserError(f"{key} {name}: unknown benchmark; there are {' and '.join(BENCHMARKS)}, or give a .jsonl file")


def first_row(path: Path, name: str) -> dict[str, Any]:
    """The first object of a .jsonl file. UserError when the file is missing, empty, or its first line is no JSON object."""
    try:
        with path.open(encoding="utf-8") as file:
            number, line = next(((number, line) for number, line in enumerate(file, 1) if line.strip()), (0, ""))
    except OSError as error:
        raise UserError(f"{name}: cannot be read ({error.strerror}); correct the path") from None
    except UnicodeDecodeError:
        raise UserError(f"{name}: is not text in UTF-8; give a file with one JSON object a line") from None
    if not line:
        raise UserError(f"{name}: is empty; give a file with one JSON object a line")
    return parse_row(line, f"{name}, line {number}")


def parse_row(line: str, where: str) -> dict[str, Any]:
    """One line of a .jsonl file as an object, or UserError."""
    try:
        row = json.loads(line)
    except json.JSONDecodeError as error:
        raise UserError(f"{where}: not JSON ({error.msg}); write one JSON object a line") from None
    if not isinstance(row, dict):
        raise UserError(f"{where}: is no JSON object; write one a line")
    return row


def dotted_value(row: Any, column: str) -> Any:
    """The value of `a.b` in nested mappings; None when it is not there. A column whose own name has dots comes first."""
    if isinstance(row, dict) and column in row:
        return row[column]
    for part in column.split("."):
        row = row.get(part) if isinstance(row, dict) else None
    return row


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
        raise UserError(f"{name}: {path.name} is no JSON object; copy or download it again")
    return value
