"""What a checkpoint folder holds besides weights, so that others can load it.

It loads in transformers 5 with `import ouro_rl`, and in transformers 4.57 with the published code's files in it: its
tokenizer is of a class that both know, `auto_map` names only files that are there, `use_cache` is on, every file can be
read by those whom the umask allows, and README.md says how to load it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from transformers.dynamic_module_utils import get_relative_imports
from transformers.utils.hub import cached_file

from ouro_rl.model.tokenizer import save_tokenizer

CONFIG, CARD = "config.json", "README.md"


@dataclass(frozen=True, kw_only=True)
class PublishedCode:
    """A checkpoint's own code, which transformers runs with `trust_remote_code=True` (we never do)."""

    auto_map: Mapping[str, str] = field(default_factory=dict)
    """Class by name of the Auto class, as `module.Class`."""
    files: Mapping[str, str] = field(default_factory=dict)
    """Content by file name."""


def published_code(path: str, revision: str | None = None) -> PublishedCode:
    """The code that a folder or hub id brings along; none unless every file is there that its `auto_map` needs."""
    auto_map = _read(path, CONFIG, revision).get("auto_map") or {}
    plain: dict[str, str] = {}
    files: dict[str, str] = {}
    for name, target in auto_map.items():
        repository, _, local = target.rpartition("--")
        elsewhere = bool(repository) and repository != path
        source, at = (repository, None) if elsewhere else (path, revision)
        if not _collect(f"{local.partition('.')[0]}.py", source, at, files):
            return PublishedCode()
        plain[name] = local
    return PublishedCode(auto_map=plain, files=files)


def complete_checkpoint(folder: Path, tokenizer: Any, code: PublishedCode, card: str) -> None:
    """Turn a folder with saved weights and config into one that others can load. `card` is its README."""
    save_tokenizer(tokenizer, folder)
    (folder / CARD).write_text(card, encoding="utf-8")
    for name, text in code.files.items():
        (folder / name).write_text(text, encoding="utf-8")
    # transformers warns of every `rope_scaling`, even of one that is null, whenever it reads the file.
    _change(folder / CONFIG, {"auto_map": dict(code.auto_map) or None, "use_cache": True, "rope_scaling": None})
    _change(folder / "generation_config.json", {"use_cache": True})
    for file in folder.iterdir():
        if file.is_file():  # safetensors writes files that only their owner can read
            file.chmod((folder / CARD).stat().st_mode)


def _change(path: Path, values: Mapping[str, Any]) -> None:
    """Set values of a JSON file, in the alphabetical order in which transformers writes them; None deletes one."""
    changed = {**json.loads(path.read_text(encoding="utf-8")), **values}
    kept = {key: value for key, value in sorted(changed.items()) if key not in values or value is not None}
    path.write_text(json.dumps(kept, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _collect(name: str, path: str, revision: str | None, files: dict[str, str]) -> bool:
    """Add a file and those that it imports to `files`; False if one is missing."""
    if name in files:
        return True
    found = _file(path, name, revision)
    if found is None:
        return False
    files[name] = found.read_text(encoding="utf-8")
    return all(_collect(f"{module}.py", path, revision, files) for module in get_relative_imports(found))


def _read(path: str, name: str, revision: str | None) -> dict[str, Any]:
    found = _file(path, name, revision)
    return {} if found is None else json.loads(found.read_text(encoding="utf-8"))


def _file(path: str, name: str, revision: str | None) -> Path | None:
    found = cached_file(
        path,
        name,
        revision=revision,
        _raise_exceptions_for_missing_entries=False,
        _raise_exceptions_for_connection_errors=False,
    )
    return None if found is None else Path(found)
