"""Units: every sample in exactly one, groups whole where there are enough of them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rollout_workers.fleet.units import UNITS_PER_WORKER, Unit, cut


@given(sizes=st.lists(st.integers(0, 40), max_size=60), workers=st.integers(1, 9), skipped=st.sets(st.integers(0, 59)))
def test_every_sample_is_in_exactly_one_unit_in_order(sizes, workers, skipped):
    units = cut(sizes, workers, skipped=skipped)
    asked = [request for request, size in enumerate(sizes) for _ in range(size)]
    wanted = [(place, request) for place, request in enumerate(asked) if request not in skipped]
    assert [pair for unit in units for pair in zip(unit.places, unit.requests, strict=True)] == wanted
    assert all(len(unit) for unit in units)


@given(sizes=st.lists(st.integers(1, 40), min_size=1, max_size=60), workers=st.integers(1, 9))
def test_groups_stay_whole_where_there_are_enough(sizes, workers):
    units = cut(sizes, workers)
    if len(sizes) >= workers:
        owners = [request for unit in units for request in set(unit.requests)]
        assert len(owners) == len(set(owners)), "a group is in two units"
    else:
        assert len(units) >= min(workers, sum(sizes))
    largest = max(sizes)
    assert all(len(unit) <= max(largest, sum(sizes) / (workers * UNITS_PER_WORKER) + 1) for unit in units)


def test_units_by_hand():
    assert [unit.requests for unit in cut([8] * 4, 2)] == [(0,) * 8, (1,) * 8, (2,) * 8, (3,) * 8]
    assert [unit.places for unit in cut([8], 3)] == [(0, 1, 2), (3, 4, 5), (6, 7)]
    assert [len(unit) for unit in cut([1] * 500, 2)] == [32] * 15 + [20]
    assert cut([], 2) == [] == cut([0, 0], 2)


def test_a_unit_by_request():
    unit = Unit(places=(3, 4, 5, 6), requests=(1, 1, 2, 4))
    assert [(part.places, part.requests) for part in unit.by_request()] == [
        ((3, 4), (1, 1)), ((5,), (2,)), ((6,), (4,))
    ]  # fmt: skip


@pytest.mark.parametrize("workers", [1, 2, 4])
def test_more_workers_get_smaller_units(workers):
    assert len(cut([1] * 1000, workers)) in range(workers * UNITS_PER_WORKER - 1, workers * UNITS_PER_WORKER + 1)
