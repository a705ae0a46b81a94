"""A trained exit gate as a small file: `hidden_size + 1` numbers, and the hash of the body that they were trained for.

A gate reads the states of one body; with another it decides at random. So a patch names its body by a hash over all
other tensors of the checkpoint, and is not applied to any other.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from ouro_rl.core.errors import UserError
from ouro_rl.core.paths import is_local
from ouro_rl.model.checkpoint_files import check_model, expected_shapes, weight_files

GATE = ("model.early_exit_gate.weight", "model.early_exit_gate.bias")
FORMAT = "ouro-rl gate patch 1"


@dataclass(frozen=True, kw_only=True)
class GatePatch:
    weight: Tensor
    """fp32 [1, hidden]."""
    bias: Tensor
    """fp32 [1]."""
    base: str
    """SHA-256 of the body, as `body_hash` computes it."""


def extract_gate(checkpoint: Path) -> GatePatch:
    """The gate of a checkpoint folder. Raises UserError if the folder is not a complete checkpoint in safetensors."""
    tensors: dict[str, Tensor] = {}
    for file in _parts(checkpoint):
        with _opened(file) as stream:
            tensors |= {name: stream.get_tensor(name).float() for name in GATE if name in stream.keys()}
    return GatePatch(weight=tensors[GATE[0]], bias=tensors[GATE[1]], base=body_hash(checkpoint))


def write_patch(patch: GatePatch, file: Path) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    tensors = {GATE[0]: patch.weight.contiguous(), GATE[1]: patch.bias.contiguous()}
    save_file(tensors, file, metadata={"format": FORMAT, "base_sha256": patch.base})


def read_patch(file: Path) -> GatePatch:
    """Raises UserError for a file that is not a gate patch."""
    with _opened(file) as stream:
        metadata = stream.metadata() or {}
        if metadata.get("format") != FORMAT or set(stream.keys()) != set(GATE):
            raise UserError(f"{file}: is not a gate patch; give a file that `ouro-rl gate extract` wrote")
        weight, bias = (stream.get_tensor(name) for name in GATE)
    return GatePatch(weight=weight, bias=bias, base=metadata["base_sha256"])


def apply_patch(patch: GatePatch, base: Path, out: Path) -> None:
    """Copy the checkpoint folder `base` to `out`, with the patch's gate; nothing else changes.

    Raises UserError if the patch belongs to another body, or if `out` is not empty."""
    found = body_hash(base)
    if found != patch.base:
        raise UserError(
            f"--model {base}: this gate was trained for another body (SHA-256 {patch.base[:12]}..., here "
            f"{found[:12]}...);\n  give the checkpoint that its training started from"
        )
    if out.exists() and any(out.iterdir()):
        raise UserError(f"--out {out}: is not empty; give a new folder")
    shutil.copytree(base, out, dirs_exist_ok=True)
    for file in _parts(out):
        with _opened(file) as stream:
            metadata, here = stream.metadata(), [name for name in GATE if name in stream.keys()]
        if here:
            tensors = load_file(file)
            tensors |= {name: tensor for name, tensor in zip(GATE, (patch.weight, patch.bias), strict=True)
                        if name in here}  # fmt: skip
            mode = file.stat().st_mode
            save_file(tensors, file, metadata=metadata)
            file.chmod(mode)  # safetensors writes files that only their owner can read


def body_hash(checkpoint: Path) -> str:
    """SHA-256 over names, shapes and values of all tensors but the gate's, in the order of their names.

    Values are hashed in fp32, which holds every bf16 number: a checkpoint that training saved in fp32 has the hash of
    the bf16 checkpoint that it started from, as long as only the gate has changed."""
    config = json.loads((checkpoint / "config.json").read_text(encoding="utf-8"))
    wanted = expected_shapes(config).keys() - set(GATE)
    places: dict[str, Path] = {}
    for file in _parts(checkpoint):
        with _opened(file) as stream:
            places |= {name: file for name in stream.keys() if name in wanted}
    digest = hashlib.sha256()
    for name in sorted(wanted):
        with _opened(places[name]) as stream:
            tensor = stream.get_tensor(name).to(torch.float32).contiguous()
        digest.update(f"{name} {list(tensor.shape)}\n".encode())
        digest.update(tensor.numpy().data)
    return digest.hexdigest()


def _parts(checkpoint: Path) -> list[Path]:
    """The weight files. Raises UserError if they are not complete, or not safetensors."""
    if not is_local(str(checkpoint)):
        raise UserError(f"{checkpoint}: is not a local folder; download it first (`hf download`), and give its folder")
    check_model(str(checkpoint), key="checkpoint")
    files = weight_files(checkpoint, str(checkpoint))
    if wrong := [file for file in files if file.suffix != ".safetensors"]:
        raise UserError(f"{checkpoint}: {wrong[0].name} is not in the safetensors format; save the checkpoint in it")
    return files


@contextmanager
def _opened(file: Path) -> Iterator[Any]:
    try:
        with safe_open(file, framework="pt") as stream:
            yield stream
    except (FileNotFoundError, SafetensorError) as error:
        raise UserError(f"{file}: cannot be read as safetensors ({' '.join(str(error).split())[:120]})") from None
