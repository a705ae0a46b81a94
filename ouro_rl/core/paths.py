"""Paths that a user writes: `~`, and where a relative path in a config is looked for.

What is read is looked for beside the config file that names it, then in the working directory. What is written goes where it says,
from the working directory. Paths leave here absolute where the file is there, so that a run can be resumed from any folder.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from enum import Enum
from pathlib import Path
from typing import Any

from ouro_rl.core.errors import UserError

HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
Key = tuple[str | int, ...]


class Kind(Enum):
    """What a key that holds a path may hold."""

    MODEL = "a checkpoint's folder or a hub id"
    ROWS = "a .jsonl file, or the name of something else"
    FUNCTION = "path/to/file.py:function or module.path:function"
    OUTPUT = "what is written"


KEYS: dict[tuple[str, ...], Kind] = {
    ("model", "path"): Kind.MODEL,
    ("data", "source"): Kind.ROWS,
    ("eval", "source"): Kind.ROWS,
    ("rewards", "functions", "*", "name"): Kind.FUNCTION,
    ("rollout", "logit_processors", "*"): Kind.FUNCTION,
    ("rollout", "early_stop", "hook"): Kind.FUNCTION,
    ("run", "dir"): Kind.OUTPUT,
    ("output",): Kind.OUTPUT,
}
"""Every key of a config that holds a path; `*` is any item of a list."""


def expand(text: str) -> str:
    """`text` with the home folder for a leading `~` or `~name`. UserError when there is no such home."""
    expanded = os.path.expanduser(text)
    if expanded.startswith("~"):
        raise UserError(f"{text}: no home folder is known for {text.partition('/')[0]}; write the whole path")
    return expanded


def path_option(text: str) -> Path:
    """A path on the command line; a type for argparse."""
    return Path(expand(text))


def check_writable(folder: Path, key: str) -> None:
    """UserError unless a folder, which need not be there yet, can be written into: told before the work whose results it is for."""
    place = next(place for place in (folder.absolute(), *folder.absolute().parents) if place.exists())
    if not place.is_dir():
        raise UserError(f"{key} {folder}: {place} is a file; give a folder, new or not")
    if not os.access(place, os.W_OK | os.X_OK):
        raise UserError(f"{key} {folder}: cannot be written (no permission in {place}); give a folder that can")


def is_local(path: str, folders: Sequence[Path] = (Path(),)) -> bool:
    """Is this a folder rather than a hub id `org/name`? `configs/x` is local wherever there is a folder `configs`."""
    if not HUB_ID.fullmatch(path):
        return True
    return any((folder / path).exists() or (folder / path).parent.is_dir() for folder in folders)


def path_in(kind: Kind, text: str) -> tuple[str, str]:
    """The path in a value, and what follows it; no path where the value is the name of something else."""
    if kind is Kind.FUNCTION:
        file, colon, function = text.rpartition(":")
        return (file, colon + function) if file.endswith(".py") else ("", text)
    if kind is Kind.ROWS and not text.endswith(".jsonl"):
        return "", text
    return text, ""


def locate(kind: Kind, text: str, folders: Sequence[Path]) -> tuple[str, tuple[Path, ...]]:
    """A value with its path found in the first of `folders` that has it; and where it was looked for in vain."""
    path, rest = path_in(kind, text)
    path = expand(path)
    if not path or kind is Kind.OUTPUT or os.path.isabs(path):
        return path + rest, ()
    places = tuple(dict.fromkeys(Path(os.path.abspath(folder / path)) for folder in folders))
    for place in places:
        if place.exists():
            return f"{place}{rest}", ()
    return path + rest, places if kind is not Kind.MODEL or is_local(path, folders) else ()


def kind_of(key: Key) -> Kind | None:
    """What a key holds; None when it is no path."""
    return KEYS.get(tuple("*" if isinstance(part, int) else part for part in key))


def texts_in(values: Any, at: Key = ()) -> Iterator[tuple[Key, str]]:
    """Every text in nested mappings and lists, by its key."""
    if isinstance(values, str):
        yield at, values
    elif isinstance(values, dict | list):
        for part, value in values.items() if isinstance(values, dict) else enumerate(values):
            yield from texts_in(value, (*at, part))


def put(values: Any, key: Key, text: str) -> None:
    """Replace one text of `texts_in`."""
    for part in key[:-1]:
        values = values[part]
    values[key[-1]] = text


def same_place(kind: Kind, before: str, now: str) -> bool:
    """Whether two values mean one thing: equal, the same file, or one of the same name where the former is no longer there, because
    the folder that it stands in was moved."""
    (old, old_rest), (new, new_rest) = path_in(kind, before), path_in(kind, now)
    if before == now or old_rest != new_rest or not old or not new:
        return before == now
    if not os.path.exists(new):
        return False
    return os.path.samefile(old, new) if os.path.exists(old) else os.path.basename(old) == os.path.basename(new)
