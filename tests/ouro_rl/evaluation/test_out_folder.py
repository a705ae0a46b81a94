"""The folder of an evaluation: other results in it, and files that were cut off."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ouro_rl.core.errors import UserError
from ouro_rl.evaluation.out_folder import EvalFolder, timed, to_line, untimed
from ouro_rl.evaluation.request import first_difference
from tests.references.answers import make_answer


def test_another_evaluation_is_refused_and_the_same_goes_on(tmp_path: Path) -> None:
    folder = EvalFolder(tmp_path / "new")
    asked = {"model": "m", "samples": 1, "benchmarks": [{"eval.limit": 3}]}
    folder.check(asked)
    assert not folder.path.exists(), "checking changes nothing"
    folder.begin(asked | {"loaded": {"weights": "abc"}})
    folder.check(asked)
    with pytest.raises(UserError, match="holds another evaluation .samples was 1 and is 2.;\n  give a new folder"):
        folder.check(asked | {"samples": 2})
    with pytest.raises(UserError, match=r"benchmarks\[0\].eval.limit was 3 and is None"):
        folder.check(asked | {"benchmarks": [{"eval.limit": None}]})
    with pytest.raises(UserError, match="loaded.weights was 'abc' and is 'def'"):
        folder.begin(asked | {"loaded": {"weights": "def"}})
    folder.clear()
    assert list(folder.path.iterdir()) == []


def test_a_result_of_an_older_version_is_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "eval.json").write_text("{}")
    with pytest.raises(UserError, match="of another version"):
        EvalFolder(tmp_path).check({})
    (tmp_path / "mine.txt").write_text("")
    EvalFolder(tmp_path).clear()
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


@pytest.mark.parametrize("kept", [0, 1, 5])
def test_a_line_that_was_cut_off_is_removed(tmp_path: Path, kept: int) -> None:
    folder = EvalFolder(tmp_path)
    lines = [to_line(timed(make_answer(i, completion="é" * 40_000).to_dict(), i / 4)) for i in range(6)]
    whole = "".join(lines[:kept]).encode()
    folder.partial_path.write_bytes(whole + lines[kept].encode()[:-30])
    rows = folder.answers_so_far()
    assert folder.partial_path.read_bytes() == whole, "so that what is appended begins a line"
    assert [untimed(row) for row in rows["made up", "fixed 1"]] == [
        (json.loads(to_line(make_answer(i, completion="é" * 40_000).to_dict())), i / 4) for i in range(kept)
    ]


def test_numbers_that_are_not_finite_become_null(tmp_path: Path) -> None:
    folder = EvalFolder(tmp_path)
    folder.finish({"rows": [{"mean_depth": float("nan"), "n": (1, float("inf"))}], "text": "nan"}, [])
    assert folder.result() == {"rows": [{"mean_depth": None, "n": [1, None]}], "text": "nan"}


def test_differences_are_named() -> None:
    assert first_difference({"a": [1, {"b": 2}]}, {"a": [1, {"b": 2}]}) is None
    assert first_difference({"a": [1]}, {"a": [1, 2]}) == "a[1] was None and is 2"
    shown = first_difference({"a": "x" * 99}, {"a": 1, "b": 1})
    assert shown is not None and shown.endswith("xx... and is 1") and len(shown) < 90
