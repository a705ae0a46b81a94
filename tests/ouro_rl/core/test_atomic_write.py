"""Atomic file writes, by all of their callers."""

from __future__ import annotations

import json

import pytest

from ouro_rl.bench.results import write_json
from ouro_rl.core.atomic_write import write_atomically
from ouro_rl.core.errors import UserError
from rewards.grade import grade_file


def broken_parts():
    yield "half"
    raise RuntimeError("stopped")


def test_a_file_is_complete_or_unchanged(tmp_path) -> None:
    file = tmp_path / "new" / "file.txt"
    write_atomically(file, ["a", "b\n"])
    with pytest.raises(RuntimeError, match="stopped"):
        write_atomically(file, broken_parts())
    assert file.read_text() == "ab\n"
    assert [path.name for path in file.parent.iterdir()] == ["file.txt"], "no temporary file is left"


def test_the_figures_of_a_benchmark_are_never_half_written(tmp_path, monkeypatch) -> None:
    write_json({"benchmark": "cache"}, tmp_path / "figures.json")
    monkeypatch.setattr("os.replace", lambda *_: (_ for _ in ()).throw(OSError("full")))
    with pytest.raises(OSError, match="full"):
        write_json({"benchmark": "other"}, tmp_path / "figures.json")
    assert json.loads((tmp_path / "figures.json").read_text()) == {"benchmark": "cache"}
    assert len(list(tmp_path.iterdir())) == 1


def test_graded_rows_can_replace_their_input_and_an_unwritable_file_is_named(tmp_path) -> None:
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"completion": "yes", "answer": "yes"}\n')
    grade_file(rows, "exact", rows)
    assert "value" in json.loads(rows.read_text())
    with pytest.raises(UserError, match=r"^--out .*rows.jsonl is a file; give a new or existing folder"):
        grade_file(rows, "exact", rows / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["rows.jsonl"]


def test_a_lone_surrogate_comes_back_from_json(tmp_path) -> None:
    """A completion may hold one; it must not end a run."""
    record = {"completion": "a \ud800 \u00e9"}
    write_atomically(tmp_path / "row.json", [json.dumps(record, ensure_ascii=False)])
    assert json.loads((tmp_path / "row.json").read_text(encoding="utf-8")) == record
