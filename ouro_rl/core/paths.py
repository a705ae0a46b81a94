"""User-supplied paths: `~`, and how relative paths in a config are resolved.

Inputs are searched for next to the config file that names them, then in the working directory. Outputs are relative to
the working directory. Inputs that exist become absolute, so that a run can be resumed from any folder.
"""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Iterator, Sequence
from enum import Enum
from pathlib import Path
from typing import Any

from ouro_rl.core.benchmarks import HUB_BENCHMARKS
from ouro_rl.core.errors import UserError
from ouro_rl.core.row_files import is_row_file

HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
DATA_NAMES = ("arithmetic", "hops", "walks", *HUB_BENCHMARKS)
"""Names of data that are never paths."""
MOST_SHOWN = 60
"""How many characters of a text that is no path are shown."""
Key = tuple[str | int, ...]


class Kind(Enum):
    """What the value of a path key may be."""

    MODEL = "a checkpoint folder or a hub id"
    ROWS = "a data file or folder, or a name that is not a path"
    FUNCTION = "path/to/file.py:function or module.path:function"
    OUTPUT = "an output file or folder"


KEYS: dict[tuple[str, ...], Kind] = {
    ("model", "path"): Kind.MODEL,
    ("data", "source"): Kind.ROWS,
    ("eval", "source"): Kind.ROWS,
    ("rewards", "functions", "*", "name"): Kind.FUNCTION,
    ("rollout", "logit_processors", "*"): Kind.FUNCTION,
    ("rollout", "early_stop", "hook"): Kind.FUNCTION,
    ("run", "dir"): Kind.OUTPUT,
    ("output",): Kind.OUTPUT,
    ("runs",): Kind.OUTPUT,
}
"""Every config key that holds a path; `*` stands for any list item."""


def expand(text: str) -> str:
    """Expand a leading `~` or `~name`. Raises UserError if there is no such home folder, and for a text that no system
    takes as a path, whether or not something is there."""
    if not text:
        raise UserError("a path is empty; write it, or set the shell variable that was to give it")
    expanded = os.path.expanduser(text)
    if expanded.startswith("~"):
        raise UserError(f"{text}: no home folder is known for {text.partition('/')[0]}; write the whole path")
    try:
        os.lstat(expanded)
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        pass  # a path, at which nothing is to be found
    except (OSError, ValueError) as error:  # too long, a loop of links; a null byte, half of a surrogate pair
        reason = error.strerror if isinstance(error, OSError) else str(error)
        shown = text if len(text) <= MOST_SHOWN else f"{text[:MOST_SHOWN]}..."
        raise UserError(f"{shown!r}: cannot be a path ({reason}); correct it") from None
    return expanded


def path_option(text: str) -> Path:
    """argparse type for a path."""
    return Path(expand(text))


def check_writable(folder: Path, key: str) -> None:
    """Raise UserError unless results can be written to `folder`, which need not exist yet; called before the work
    starts."""
    place = next(place for place in (folder.absolute(), *folder.absolute().parents) if place.exists())
    if not place.is_dir():
        raise UserError(f"{key} {folder}: {place} is a file; give a new or existing folder")
    try:
        with tempfile.TemporaryFile(dir=place):  # permissions do not tell: of root's, or of a file system's own rules
            pass
    except OSError as error:
        reason = f"{error.strerror} in {place}"
        raise UserError(f"{key} {folder}: cannot be written ({reason}); give a writable folder") from None


def check_writable_file(file: Path | None, key: str) -> None:
    """The same for a result that is one file; None: there is to be none."""
    if file is None:
        return
    if file.is_dir():
        raise UserError(f"{key} {file}: is a folder; give a file")
    check_writable(file.parent, key)


def is_local(path: str, folders: Sequence[Path] = (Path(),)) -> bool:
    """Whether this is a folder rather than a hub id `org/name`; `configs/x` is local if a folder `configs` exists."""
    if not HUB_ID.fullmatch(path):
        return True
    return any((folder / path).exists() or (folder / path).parent.is_dir() for folder in folders)


def path_in(kind: Kind, text: str) -> tuple[str, str]:
    """Split a value into its path and the rest. The path is empty if the value is a name that is not a path."""
    if kind is Kind.FUNCTION:
        file, colon, function = text.rpartition(":")
        return (file, colon + function) if file.endswith(".py") else ("", text)
    if kind is Kind.ROWS and not is_row_path(text):
        return "", text
    return text, ""


def is_row_path(text: str, folders: Sequence[Path] = (Path(),)) -> bool:
    """Whether the source of rows is a data file or folder, rather than the name of generated data or a hub id."""
    if text in DATA_NAMES:
        return False
    is_path = is_row_file(text) or ("/" in text and is_local(text, folders))
    return is_path or any((folder / text).is_dir() for folder in folders)


def locate(kind: Kind, text: str, folders: Sequence[Path]) -> tuple[str, tuple[Path, ...]]:
    """Resolve the path in a value against the first of `folders` that has it. Returns the value and, if not found, the
    places searched."""
    text = expand(text)
    is_rows = kind is Kind.ROWS and is_row_path(text, folders)
    path, rest = (text, "") if is_rows else path_in(kind, text)
    if not path or kind is Kind.OUTPUT or os.path.isabs(path):
        return path + rest, ()
    places = tuple(dict.fromkeys(Path(os.path.abspath(folder / path)) for folder in folders))
    for place in places:
        if place.exists():
            return f"{place}{rest}", ()
    return path + rest, places if kind is not Kind.MODEL or is_local(path, folders) else ()


def kind_of(key: Key) -> Kind | None:
    """What a key holds, or None if it is not a path."""
    return KEYS.get(tuple("*" if isinstance(part, int) else part for part in key))


def texts_in(values: Any, at: Key = ()) -> Iterator[tuple[Key, str]]:
    """Every string in nested mappings and lists, with its key."""
    if isinstance(values, str):
        yield at, values
    elif isinstance(values, dict | list):
        for part, value in values.items() if isinstance(values, dict) else enumerate(values):
            yield from texts_in(value, (*at, part))


def put(values: Any, key: Key, text: str) -> None:
    """Replace one string found by `texts_in`."""
    for part in key[:-1]:
        values = values[part]
    values[key[-1]] = text


def same_place(kind: Kind, before: str, now: str) -> bool:
    """Whether two values mean the same: equal, the same file, or the same file name if `before` no longer exists
    because its folder was moved."""
    (old, old_rest), (new, new_rest) = path_in(kind, before), path_in(kind, now)
    if before == now or old_rest != new_rest or not old or not new:
        return before == now
    if not os.path.exists(new):
        return False
    return os.path.samefile(old, new) if os.path.exists(old) else os.path.basename(old) == os.path.basename(new)
