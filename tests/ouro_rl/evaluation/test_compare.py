"""Two evaluations compared: known tables, problems that are not the same, and the command."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ouro_rl.cli import main as cli
from ouro_rl.core.errors import UserError
from ouro_rl.evaluation.answers import Answer
from ouro_rl.evaluation.compare import compare
from ouro_rl.evaluation.out_folder import EvalFolder
from ouro_rl.evaluation.statistics import mcnemar, paired_difference
from tests.references.answers import make_answer


def folder(path: Path, answers: list[Answer], suffix: str | None = None) -> EvalFolder:
    names = dict.fromkeys(answer.benchmark for answer in answers)
    result = {"benchmarks": [{"benchmark": name, "prompt_suffix": suffix} for name in names]}
    path.mkdir()
    made = EvalFolder(path)
    made.finish(result, [answer.to_dict() for answer in answers])
    return made


def right(flags: str, **given: Any) -> list[Answer]:
    """One answer per character: 1 right, 0 wrong, - could not be scored."""
    values = {"1": 1.0, "0": 0.0, "-": None}
    return [make_answer(index, value=values[flag], **given) for index, flag in enumerate(flags)]


def test_a_known_table(tmp_path: Path) -> None:
    a, b = folder(tmp_path / "a", right("1100110-", depths=(4, 4))), folder(tmp_path / "b", right("11111001"))
    (found,) = compare(a, b)
    assert (found.problems, found.only_a, found.only_b) == (7, 1, 2), "the unscored problem is in neither"
    assert found.accuracy_a == pytest.approx(4 / 7) and found.accuracy_b == pytest.approx(5 / 7)
    assert found.p_value == mcnemar(1, 2) == 1.0
    assert found.difference == paired_difference([1, 1, 0, 0, 1, 1, 0], [1, 1, 1, 1, 1, 0, 0])
    assert (found.loops_a, found.loops_b, found.loops_difference.value) == (8.0, 3.0, -5.0)


def test_several_samples_are_paired_by_their_shares(tmp_path: Path) -> None:
    a = [make_answer(p, s, value=float(s < p)) for p in range(4) for s in range(3)]
    b = [make_answer(p, s, value=float(s <= p)) for p in range(4) for s in range(3)]
    (found,) = compare(folder(tmp_path / "a", a), folder(tmp_path / "b", b))
    assert found.difference == paired_difference([0, 1 / 3, 2 / 3, 1], [1 / 3, 2 / 3, 1, 1])
    assert found.p_value is None and found.only_a is None, "McNemar's test is of single answers"


def test_differences_by_subject(tmp_path: Path) -> None:
    groups = [{"subject": "A"}, {"subject": "A"}, {"subject": "B"}, {"subject": "B"}]
    parts = [
        [make_answer(i, value=float(flag), groups=groups[i]) for i, flag in enumerate(flags)]
        for flags in ((0, 0, 1, 1), (1, 1, 1, 0))
    ]
    (found,) = compare(folder(tmp_path / "a", parts[0]), folder(tmp_path / "b", parts[1]))
    assert {name: one.value for name, one in found.by_group["subject"].items()} == {"A": 1.0, "B": -0.5}


def test_rows_are_named_where_they_differ(tmp_path: Path) -> None:
    both = right("10", row="fixed 1") + right("11", row="fixed 2")
    a, b = folder(tmp_path / "a", both), folder(tmp_path / "b", both)
    assert [(one.row_a, one.row_b) for one in compare(a, b)] == [("fixed 1", "fixed 1"), ("fixed 2", "fixed 2")]
    (found,) = compare(a, a, [("fixed 1", "fixed 2")])
    assert found.difference.value == 0.5
    with pytest.raises(UserError, match="--rows fixed 9: B has no such row; it has fixed 1, fixed 2"):
        compare(a, b, [("fixed 1", "fixed 9")])
    other = folder(tmp_path / "c", right("10", row="sample") + right("10", row="kl 1"))
    with pytest.raises(UserError, match="no row of one benchmark is in both"):
        compare(a, other)
    single = [folder(tmp_path / name, right("10", row=name)) for name in ("x", "y")]
    assert compare(*single)[0].row_b == "y", "the only rows are compared whatever they are called"


def test_other_problems_are_not_compared_but_other_prompt_formats_are(tmp_path: Path) -> None:
    a = folder(tmp_path / "a", right("10"))
    suffixed = [make_answer(i, question=f"problem {i} Think.") for i in range(2)]
    assert compare(a, folder(tmp_path / "b", suffixed, " Think."))[0].problems == 2
    assert compare(a, folder(tmp_path / "c", right("1")))[0].problems == 1, "one has fewer problems"
    with pytest.raises(UserError, match="problem 0 is another one in A .'problem 0'. than in B .'problem 0 Think.'"):
        compare(a, folder(tmp_path / "d", suffixed))
    with pytest.raises(UserError, match="problem 0 is another one"):
        compare(a, folder(tmp_path / "e", right("10", gold="8")))


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder(tmp_path / "a", right("1100")), folder(tmp_path / "b", right("1111"))
    arguments = ["compare", str(tmp_path / "a"), str(tmp_path / "b")]
    assert cli.main([*arguments, "--out", str(tmp_path / "c.json")]) == 0
    shown = capsys.readouterr().out
    assert "50.0%   100.0%" in shown and "+50.0 [" in shown and "0.5" in shown
    (row,) = json.loads((tmp_path / "c.json").read_text())["rows"]
    assert (row["only_a"], row["only_b"], row["p_value"]) == (0, 2, 0.5)
    assert cli.main(["compare", str(tmp_path / "a"), str(tmp_path / "gone")]) == 2
    assert "gone/eval.json: cannot be read" in capsys.readouterr().err
