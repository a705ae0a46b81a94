"""Reads .jsonl files, with errors that name the file and the line."""

from __future__ import annotations

import gzip
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

from ouro_rl.core.errors import UserError

Row = dict[str, Any]


def read_jsonl(path: Path, name: str | None = None, *, growing: bool = False) -> Iterator[Row]:
    """Yield the objects of a file, skipping blank lines. Errors call the file `name`. Raises UserError if it cannot be
    read, is empty, or has a line that is not a JSON object.

    growing: a process may still be writing the file, or was killed while writing it. It may be empty, and text after
    the last newline is ignored as an incomplete line."""
    name = name or str(path)
    empty = not growing
    try:
        with _opened(path) as file:
            for number, line in enumerate(file, start=1):
                if line.strip() and (line.endswith("\n") or not growing):
                    empty = False
                    yield parse_row(line, f"{name}, line {number}")
    except (gzip.BadGzipFile, EOFError) as error:
        raise UserError(f"{name}: not a whole gzip file ({error}); copy or download it again") from None
    except OSError as error:
        raise UserError(f"{name}: cannot be read ({error.strerror}); correct the path") from None
    except UnicodeDecodeError:
        raise UserError(f"{name}: is not UTF-8 text; save it as UTF-8, with one JSON object per line") from None
    if empty:
        raise UserError(f"{name}: is empty; give a file with one JSON object per line")


def _opened(path: Path) -> TextIO:
    """The text of a file, without a byte order mark; that of a name in `.gz` is unpacked."""
    if path.suffix.lower() == ".gz":
        return gzip.open(path, "rt", encoding="utf-8-sig", newline="\n")
    return path.open(encoding="utf-8-sig", newline="\n")


def parse_row(line: str, where: str) -> Row:
    """Parse one line of a .jsonl file into an object. Raises UserError if it is not one."""
    try:
        row = json.loads(line)
    except json.JSONDecodeError as error:
        raise UserError(f"{where}: not JSON ({error.msg}); write one JSON object per line") from None
    except (ValueError, RecursionError) as error:  # thousands of digits or of nested brackets
        reason = str(error).split(";")[0]
        fix = "nest the value less" if isinstance(error, RecursionError) else "write such a number as a string"
        raise UserError(f"{where}: cannot be read ({reason}); {fix}") from None
    if not isinstance(row, dict):
        raise UserError(f"{where}: is not a JSON object; write one per line")
    return row


def dotted_value(row: Any, column: str) -> Any:
    """The value of `a.b` in nested mappings, or None if absent. A column whose own name contains dots takes
    precedence. NaN, as numbers that are missing are stored in columns of floats, is None."""
    if isinstance(row, dict) and column in row:
        row = row[column]
    else:
        for part in column.split("."):
            row = row.get(part) if isinstance(row, dict) else None
    return None if isinstance(row, float) and math.isnan(row) else row


def column_problem(name: str, column: str, row: dict[str, Any], key: str) -> str:
    """Error message for a row whose question or answer column, set by `key`, is missing or null."""
    other = "; null when no reward needs an answer" if key == "data.answer_column" else ""
    if column in row or _parent(row, column) is not None:
        return f"{name}: column {column!r} is null;\n  leave such rows out, or set {key} to another column{other}"
    return f"{name}: there is no column {column!r}, only {', '.join(row)};\n  set {key} to one of these{other}"


def _parent(row: dict[str, Any], column: str) -> Any:
    """The mapping that holds the last part of a dotted column, if it has that part."""
    above, dot, last = column.rpartition(".")
    holder = dotted_value(row, above) if dot else None
    return holder if isinstance(holder, dict) and last in holder else None
