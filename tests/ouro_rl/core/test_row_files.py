"""Data files of four forms give the same rows; what is wrong in them is named."""

from __future__ import annotations

import csv
import gzip
import json
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest

from ouro_rl.core.errors import UserError
from ouro_rl.core.row_files import SUFFIXES, first_row, is_row_file, read_row_file

ROWS = [
    {"problem": '1, 2\nand "3"?', "answer": "07", "note": None},
    {"problem": "数学", "answer": "1e3", "note": "x" * 200_000},
]


def write(folder: Path, suffix: str, rows=ROWS) -> Path:
    path = folder / f"rows{suffix}"
    if suffix == ".jsonl.gz":
        path.write_bytes(gzip.compress("".join(json.dumps(row) + "\n" for row in rows).encode()))
    elif suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    elif suffix == ".json":
        path.write_text(json.dumps(rows, indent=1))
    elif suffix == ".parquet":
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    else:
        with path.open("w", newline="", encoding="utf-8-sig") as file:  # as spreadsheets write it
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
    return path


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_every_form_gives_the_same_rows(tmp_path: Path, suffix: str) -> None:
    path = write(tmp_path, suffix)
    assert is_row_file(str(path))
    assert list(read_row_file(path)) == ROWS, "cells stay text: 07 is no 7"
    assert first_row(path) == ROWS[0]
    loud = path.rename(path.with_name(path.name.upper()))
    assert is_row_file(str(loud)) and list(read_row_file(loud)) == ROWS


def test_nested_rows_of_parquet(tmp_path: Path) -> None:
    rows = [{"prompt": [{"role": "user", "content": "1+1"}], "gold": {"answer": "2"}}]
    assert list(read_row_file(write(tmp_path, ".parquet", rows))) == rows


def test_a_json_file_may_hold_one_object_per_line(tmp_path: Path) -> None:
    (tmp_path / "rows.json").write_text('{"problem": "1"}\n{"problem": "2"}\n')
    assert list(read_row_file(tmp_path / "rows.json")) == [{"problem": "1"}, {"problem": "2"}]


@pytest.mark.parametrize(
    ("name", "content", "part"),
    [
        ("a.json", b"", "is empty"),
        ("a.json", b"[]", "is empty"),
        ("a.json", b"[1]", "row 1: is not a JSON object"),
        ("a.json", b'[{"a": 1}', "not JSON"),
        ("a.json", b"\xff\xfe[]", "not UTF-8"),
        ("a.csv", b"", "is empty"),
        ("a.csv", b"a,b\n", "is empty"),
        ("a.csv", b"a,b\n1,2\n1,2,3\n", "row 2: has another number of cells"),
        ("a.csv", b"a,b\n1\n", "row 1: has another number of cells"),
        ("a.csv", b'a,b\n1,"2\n', "not CSV"),
        ("a.csv", b"a\xff,b\n1,2\n", "is not UTF-8 text; save it as UTF-8"),
        ("a.csv", b"a,b,a\n1,2,3\n", "the header has the column 'a' twice"),
        ("a.csv", b"a;b\n1;2\n", "one cell, 'a;b'; separate cells with commas"),
        ("a.csv", b"a\tb\n1\t2\n", "separate cells with commas"),
        ("a.csv", b"a|b\n1|2\n", "separate cells with commas"),
        ("a.jsonl", b"\xff\xfe{", "is not UTF-8 text; save it as UTF-8"),
        ("a.parquet", b"nothing", "not Parquet"),
        ("a.parquet", None, "cannot be read"),
        ("a.csv", None, "cannot be read"),
    ],
)
def test_what_cannot_be_read_is_named(tmp_path: Path, name: str, content: bytes | None, part: str) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=part) as caught:
        list(read_row_file(tmp_path / name))
    assert name in str(caught.value) and len(str(caught.value).splitlines()) <= 2


@pytest.mark.parametrize(
    ("content", "row"),
    [
        ("problem\n1;2\n", {"problem": "1;2"}),  # one column is no mistake
        ("a;b,c\n1,2\n", {"a;b": "1", "c": "2"}),
        ("a,b,,\n1,2,,\n", {"a": "1", "b": "2", "": None}),  # as spreadsheets leave them
        ("a,A,a \n1,2,3\n", {"a": "1", "A": "2", "a ": "3"}),
    ],
)
def test_odd_headers_that_are_no_mistakes(tmp_path: Path, content: str, row: dict[str, str | None]) -> None:
    (tmp_path / "a.csv").write_text(content)
    assert list(read_row_file(tmp_path / "a.csv")) == [row]
