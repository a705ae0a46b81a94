"""The generated tasks by name, as rows of a data set."""

from __future__ import annotations

import pytest

from ouro_rl.core.benchmarks import HUB_BENCHMARKS
from ouro_rl.core.paths import DATA_NAMES
from ouro_rl.tasks.catalog import GENERATED, generated_rows
from ouro_rl.tasks.held_out import is_held_out


def test_their_names_are_never_paths() -> None:
    assert set(DATA_NAMES) == {*GENERATED, *HUB_BENCHMARKS}


@pytest.mark.parametrize("name", GENERATED)
@pytest.mark.parametrize("held_out", [True, False])
def test_rows_are_distinct_and_of_one_side(name: str, held_out: bool) -> None:
    rows = list(generated_rows(name, 1, None, 60, held_out=held_out))
    assert len({row["problem"] for row in rows}) == 60
    assert {is_held_out(row["problem"]) for row in rows} == {held_out}
    assert {row["difficulty"] for row in rows} == set(GENERATED[name].difficulties)
    assert all(row["answer"].strip("-").isalnum() for row in rows)
    assert all(("needed_loops" in row) == (name != "arithmetic") for row in rows)


@pytest.mark.parametrize("name", GENERATED)
def test_difficulties_can_be_chosen(name: str) -> None:
    assert {row["difficulty"] for row in generated_rows(name, 1, (2,), 20, held_out=False)} == {2}


def test_a_task_with_few_problems_ends() -> None:
    rows = list(generated_rows("arithmetic", 0, (1,), 100_000, held_out=True))
    assert 20 < len(rows) < 200
