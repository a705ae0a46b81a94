"""Reading rows of .jsonl files, with errors that name file and line."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ouro_rl.core.errors import UserError

Row = dict[str, Any]


def read_jsonl(path: Path, name: str | None = None, *, growing: bool = False) -> Iterator[Row]:
    """The objects of a file, blank lines left out; `name` is what errors call it. UserError when it cannot be read, is empty,
    or has a line that is no JSON object.

    growing: a process may still write it, or was killed while it did. It may be empty, and what follows the last newline is
    no line yet."""
    name = name or str(path)
    empty = not growing
    try:
        with path.open(encoding="utf-8", newline="\n") as file:
            for number, line in enumerate(file, start=1):
                if line.strip() and (line.endswith("\n") or not growing):
                    empty = False
                    yield parse_row(line, f"{name}, line {number}")
    except OSError as error:
        raise UserError(f"{name}: cannot be read ({error.strerror}); correct the path") from None
    except UnicodeDecodeError:
        raise UserError(f"{name}: is not text in UTF-8; give a file with one JSON object a line") from None
    if empty:
        raise UserError(f"{name}: is empty; give a file with one JSON object a line")


def first_row(path: Path, name: str | None = None) -> Row:
    """The first object of a file, with the errors of `read_jsonl`."""
    return next(read_jsonl(path, name))


def parse_row(line: str, where: str) -> Row:
    """One line of a .jsonl file as an object, or UserError."""
    try:
        row = json.loads(line)
    except json.JSONDecodeError as error:
        raise UserError(f"{where}: not JSON ({error.msg}); write one JSON object a line") from None
    except (ValueError, RecursionError) as error:  # thousands of digits, or of brackets
        reason = str(error).split(";")[0]
        raise UserError(f"{where}: cannot be read ({reason}); write such a number as a text") from None
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


def no_column(name: str, column: str, row: dict[str, Any], use: str) -> str:
    """The message about a row that lacks its question or its answer."""
    other = "" if use == "question" else " (null when no reward needs an answer)"
    return (
        f"{name}: there is no column {column!r}, only {', '.join(row)};\n  set data.{use}_column to one of these{other}"
    )
