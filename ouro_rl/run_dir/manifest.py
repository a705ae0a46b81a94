"""A checkpoint's manifest: the names, sizes and hashes of its files, by which a whole checkpoint is told from a damaged
one. Does not import torch."""

from __future__ import annotations

import hashlib
import json
import struct
from pathlib import Path
from typing import Any

import numpy as np

MANIFEST_FILE = "manifest.json"
FORMAT = 1
_CHUNK = 2**24
"""Bytes of weights that are looked at together."""
_EXPONENTS = {"F32": ("<u4", 0x7F800000), "BF16": ("<u2", 0x7F80), "F16": ("<u2", 0x7C00), "F64": ("<u8", 0x7FF << 52)}
"""For each type of safetensors: how to read its numbers as integers, and the bits that are all 1 in what is not
finite."""


def write_manifest(folder: Path, *, step: int, processes: int) -> None:
    """Write the manifest of all files in `folder`, after the last of them."""
    files = {
        path.relative_to(folder).as_posix(): {"size": path.stat().st_size, "sha256": _hash(path)}
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
    manifest = {"format": FORMAT, "step": step, "processes": processes, "files": files}
    (folder / MANIFEST_FILE).write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")


def read_manifest(folder: Path) -> dict[str, Any]:
    """The content of a manifest. Raises ValueError, with the reason, if there is none or it is damaged."""
    try:
        manifest = json.loads((folder / MANIFEST_FILE).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ValueError(f"it has no {MANIFEST_FILE}") from None
    except (OSError, ValueError):
        raise ValueError(f"its {MANIFEST_FILE} cannot be read") from None
    try:
        if manifest["format"] == FORMAT and manifest["files"] and all(
            isinstance(entry["size"], int) and isinstance(entry["sha256"], str) for entry in manifest["files"].values()
        ) and isinstance(manifest["step"], int) and isinstance(manifest["processes"], int):  # fmt: skip
            return manifest
    except (KeyError, TypeError, AttributeError):
        pass
    raise ValueError(f"its {MANIFEST_FILE} is not one of this version")


def damage(folder: Path, *, thorough: bool = True) -> str | None:
    """Why a checkpoint is not whole, in a few words; None if it is.

    Whole: every file of the manifest is there with its size and hash, and all weights are finite. Without `thorough`,
    files are not read, which is fast, but finds only what is missing or truncated."""
    try:
        files = read_manifest(folder)["files"]
    except ValueError as error:
        return str(error)
    for name, entry in files.items():
        path = folder / name
        if not path.is_file():
            return f"its {name} is missing"
        if (size := path.stat().st_size) != entry["size"]:
            return f"its {name} has {size:,} bytes instead of {entry['size']:,}"
    if not thorough:
        return None
    for name, entry in files.items():
        if _hash(folder / name) != entry["sha256"]:
            return f"its {name} is not the file that was written (another sha256)"
        if name.endswith(".safetensors") and (tensor := _first_not_finite(folder / name)):
            return f"its weights are not finite ({tensor})"
    return None


def _hash(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _first_not_finite(path: Path) -> str | None:
    """The name of a tensor with a NaN or an infinity in a safetensors file, or None."""
    with path.open("rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        header = json.loads(file.read(length))
    data = np.memmap(path, mode="r", offset=8 + length) if path.stat().st_size > 8 + length else np.zeros(0, np.uint8)
    for name, entry in header.items():
        if name == "__metadata__" or entry["dtype"] not in _EXPONENTS:  # integers are always finite
            continue
        kind, exponent = _EXPONENTS[entry["dtype"]]
        first, last = entry["data_offsets"]
        for start in range(first, last, _CHUNK):
            # frombuffer: in a file, tensors need not be aligned
            bits = np.frombuffer(data[start : min(start + _CHUNK, last)].tobytes(), dtype=kind)
            if ((bits & exponent) == exponent).any():
                return name
    return None
