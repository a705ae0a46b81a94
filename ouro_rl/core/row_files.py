"""Reads the rows of a data file: JSON lines, a JSON array, CSV or Parquet. No torch, no `datasets`.

CSV cells are text as it stands in the file (`datasets` would make the answer `07` a 7); empty cells are null."""

from __future__ import annotations

import csv
import json
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from ouro_rl.core.errors import UserError, first_line
from ouro_rl.core.jsonl import Row, read_jsonl

SUFFIXES = (".jsonl", ".jsonl.gz", ".json", ".csv", ".parquet")
KINDS = "a .jsonl (.gz), .json, .csv or .parquet file"
OTHER_SEPARATORS = ";\t|"
"""What spreadsheets and databases also write between cells."""


def is_row_file(name: str) -> bool:
    """Whether a name is that of a data file, by its suffix, in any case of letters."""
    return name.lower().endswith(SUFFIXES)


def read_row_file(path: Path, name: str | None = None) -> Iterator[Row]:
    """Yield the rows of a file, whose form its suffix says. Errors call it `name`.

    Raises UserError if it cannot be read, is empty, or holds something else."""
    name = name or str(path)
    readers = {".json": _read_json, ".csv": _read_csv, ".parquet": _read_parquet}
    suffix = path.suffix.lower()
    if suffix not in readers:
        yield from read_jsonl(path, name)
        return
    empty = True
    try:
        for row in readers[suffix](path, name):
            empty = False
            yield row
    except OSError as error:
        raise UserError(f"{name}: cannot be read ({error.strerror or error}); correct the path") from None
    except UnicodeDecodeError:
        raise UserError(f"{name}: is not UTF-8 text; save it as UTF-8") from None
    if empty:
        raise UserError(f"{name}: is empty; give data with at least one row")


def first_row(path: Path, name: str | None = None) -> Row:
    """The first row of a file. Raises the errors of `read_row_file`."""
    return next(read_row_file(path, name))


def _read_json(path: Path, name: str) -> Iterator[Row]:
    """An array of objects, or one object per line, as many .json files are."""
    text = path.read_text(encoding="utf-8-sig")
    if not text.lstrip().startswith("["):
        if text.strip():
            yield from read_jsonl(path, name)
        return
    try:
        rows = json.loads(text)
    except (ValueError, RecursionError) as error:
        reason = " ".join(str(error).split(";")[0].split())
        raise UserError(f"{name}: not JSON ({reason}); give an array of objects, or one object per line") from None
    for number, row in enumerate(rows, start=1):
        if not isinstance(row, dict):
            raise UserError(f"{name}, row {number}: is not a JSON object; give an array of objects")
        yield row


def _read_csv(path: Path, name: str) -> Iterator[Row]:
    csv.field_size_limit(sys.maxsize)  # a cell may hold a whole program
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.DictReader(file, strict=True)
        try:
            _check_header(reader.fieldnames or (), name)
            for number, row in enumerate(reader, start=1):
                if None in row or None in row.values():
                    raise UserError(
                        f"{name}, row {number}: has another number of cells than the header "
                        f"({', '.join(reader.fieldnames or ())}); quote cells that hold commas or line breaks"
                    )
                yield {column: cell or None for column, cell in row.items()}
        except csv.Error as error:
            raise UserError(f"{name}, line {reader.line_num}: not CSV ({error}); correct it") from None


def _check_header(columns: Sequence[str], name: str) -> None:
    """Raise UserError where cells seem to be separated by something else than commas, and where a column's name occurs
    twice: only the last one would be read. Columns without a name may be many: spreadsheets leave them behind."""
    if len(columns) == 1 and any(mark in columns[0] for mark in OTHER_SEPARATORS):
        raise UserError(f"{name}: the header is one cell, {columns[0]!r}; separate cells with commas")
    twice = [column for column, times in Counter(columns).items() if column and times > 1]
    if twice:
        raise UserError(f"{name}: the header has the column {twice[0]!r} twice; rename one of them")


def _read_parquet(path: Path, name: str) -> Iterator[Row]:
    import pyarrow
    import pyarrow.parquet

    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=1000):
                rows: list[Any] = batch.to_pylist()
                yield from rows
    except pyarrow.ArrowInvalid as error:
        raise UserError(f"{name}: not Parquet ({first_line(error)}); copy or download it again") from None
