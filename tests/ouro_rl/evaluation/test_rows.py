"""Figures of a row, from answers that are known."""

from __future__ import annotations

import pytest

from ouro_rl.core.errors import RunError
from ouro_rl.evaluation.rows import row_of
from ouro_rl.evaluation.statistics import clustered_mean, pass_at_k
from ouro_rl.evaluation.tables import compute_table, table
from tests.references.answers import make_answer


def test_costs_are_of_all_answers_and_per_right_one() -> None:
    answers = [
        make_answer(0, value=1.0, depths=(2, 2), flops=100),
        make_answer(1, value=0.0, depths=(4,), flops=300),
        make_answer(2, value=None, depths=(1,), flops=500, finish_reason="length"),
    ]
    row = row_of(answers)
    assert (row.n, row.correct, row.unscored, row.problems, row.samples) == (2, 1, 1, 3, 1)
    assert (row.loops_per_answer, row.mean_length, row.mean_depth) == (3.0, 4 / 3, 9 / 4)
    assert (row.loops_per_correct, row.tokens_per_correct, row.flops_per_correct) == (9.0, 4.0, 900.0)
    assert row.flops_per_answer == 300.0 and row.cut_off == pytest.approx(1 / 3)
    assert row.pass_at_k == {} and row.majority is None
    assert row_of(answers[1:]).loops_per_correct is None, "nothing right"
    with pytest.raises(RunError, match="none of 1 answers could be scored"):
        row_of(answers[2:])


def test_several_samples() -> None:
    rights = [[1, 1, 0, 1], [0, 0, 0, 0], [1, 0, 0, 0]]
    answers = [
        make_answer(p, k, value=float(value), extracted="7" if value else f"wrong {k % 2}")
        for p, values in enumerate(rights)
        for k, value in enumerate(values)
    ]
    row = row_of(answers)
    assert row.accuracy == 4 / 12 and list(row.pass_at_k) == ["1", "2", "4"]
    for k, estimate in row.pass_at_k.items():
        expected = sum(pass_at_k(4, sum(values), int(k)) for values in rights) / 3
        assert estimate.value == pytest.approx(expected, abs=1e-12)
    assert row.majority is not None
    assert row.majority.value == pytest.approx((1 + 0 + 0) / 3), "2 votes for `wrong 1` beat one for the right answer"
    interval = clustered_mean([3, 0, 1], [4, 4, 4])
    assert (row.ci_low, row.ci_high) == (interval.low, interval.high)
    shown = table([row])
    assert "pass@4" in shown and "maj@4" in shown
    unscored = [make_answer(p, k, value=None if k else 1.0) for p in range(2) for k in range(4)]
    assert list(row_of(unscored).pass_at_k) == ["1"], "no problem has two scored samples"


def test_the_tables_of_compute_and_groups() -> None:
    answers = [make_answer(p, value=float(p), groups={"subject": "Algebra", "level": p}) for p in range(2)]
    lines = table([row_of(answers)]).splitlines()
    assert any(line.split() == ["Algebra", "50.0%", "(3)"] for line in lines)
    assert any(line.split() == ["1", "100.0%", "(3)"] for line in lines)
    head, line = compute_table([row_of(answers)], [1.5]).splitlines()
    assert line.split() == ["fixed", "1", "3.0", "100", "1.5", "6", "6", "200"] and "FLOP/right" in head
    assert compute_table([row_of(answers)], [None]).splitlines()[1].split()[4] == "-"
