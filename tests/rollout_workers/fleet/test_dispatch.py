"""Giving out work: to whoever is free, once each, whatever dies."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rollout_workers.fleet.dispatch import dispatch
from rollout_workers.fleet.ledger import Ledger, Policy
from rollout_workers.fleet.units import Unit, cut
from tests.references.stub_workers import StubWorkers

POLICY = Policy(most_samples=256, held_back=0.5, tries=3)


def run(workers, units, policy=POLICY):
    """(finished units in their order, units set aside)."""
    finished, aside = [], []

    def note(unit, rollouts):
        assert rollouts == list(unit.places)
        finished.append(unit)

    ledger = Ledger(units, len(workers.held), policy)
    dispatch(workers, ledger, tuple, on_finished=note, on_set_aside=aside.append, on_poll=lambda: None)
    assert ledger.unfinished == 0 and not ledger.waiting and not ledger.suspects and not any(ledger.in_flight)
    return finished, aside


def places_of(units):
    return sorted(place for unit in units for place in unit.places)


def utilization(workers):
    return sum(workers.busy) / (len(workers.busy) * workers.now)


def skewed(unit):
    """The first half of the prompts takes eight times as long as the others."""
    return 8.0 if unit.requests[0] < 12 else 1.0


def test_skewed_lengths_keep_both_workers_busy():
    """24 groups of 8, as in the quickstart. Dealt out at the start, one worker would have all the long ones: 96 s, of
    which the other works 12."""
    units = cut([8] * 24, 2)
    workers = StubWorkers(2, skewed)
    run(workers, units)
    assert workers.now < 57 and utilization(workers) > 0.95
    shares = [Unit(places=tuple(range(first, first + 96)), requests=(first // 8,) * 96) for first in (0, 96)]
    dealt = StubWorkers(2, lambda unit: sum(skewed(Unit(places=(0,), requests=(p // 8,))) / 8 for p in unit.places))
    run(dealt, shares)
    assert dealt.now == 96 and utilization(dealt) < 0.6


@settings(max_examples=50)
@given(seed=st.integers(0, 10**6), workers=st.integers(2, 8))
def test_utilization_for_any_lengths(seed, workers):
    rng = random.Random(seed)
    lengths = [rng.choice((1.0, 1.0, 1.0, 9.0)) for _ in range(32 * workers)]
    rng.shuffle(lengths)
    stub = StubWorkers(workers, lambda unit: lengths[unit.requests[0]])
    run(stub, cut([8] * len(lengths), workers))
    assert stub.now <= sum(lengths) / workers + 2 * max(lengths)


@settings(max_examples=60)
@given(
    seed=st.integers(0, 10**6),
    sizes=st.lists(st.integers(1, 9), min_size=1, max_size=40),
    workers=st.integers(1, 5),
    held_back=st.sampled_from([0.0, 0.5, 0.9]),
    most=st.integers(1, 64),
)
def test_every_sample_comes_back_once_through_any_deaths(seed, sizes, workers, held_back, most):
    stub = StubWorkers(workers, lambda unit: 1.0, kills=lambda worker, held, rng: rng.random() < 0.2, seed=seed)
    policy = Policy(most_samples=most, held_back=held_back, tries=10**6)
    finished, aside = run(stub, cut(sizes, workers), policy)
    assert places_of(finished) == list(range(sum(sizes))) and aside == []


def test_only_the_units_of_the_dead_worker_are_given_out_again():
    deaths = iter([False] * 6 + [True] + [False] * 100)
    stub = StubWorkers(2, lambda unit: 1.0, kills=lambda *_: next(deaths))
    units = cut([4] * 16, 2)
    finished, _ = run(stub, units)
    again = [unit for unit in units if sum(one == unit for _, one in stub.given) > 1]
    assert stub.deaths == 1 and places_of(finished) == list(range(64))
    assert 1 <= len(again) <= 4, "no more than what one worker held"


@pytest.mark.parametrize("workers", [1, 2, 4])
@pytest.mark.parametrize("size", [1, 8])
def test_a_prompt_that_kills_its_worker_is_set_aside_and_no_other(workers, size):
    """Small groups share units: the guilty one is found among them."""
    count = 24 if size > 1 else 100
    stub = StubWorkers(workers, lambda unit: 1.0, kills=lambda _, held, __: 7 in held[0].requests)
    finished, aside = run(stub, cut([size] * count, workers))
    assert {request for unit in aside for request in unit.requests} == {7}
    lost = places_of(aside)
    assert lost == list(range(7 * size, 8 * size))
    assert places_of(finished) == [place for place in range(size * count) if place not in lost]
    assert stub.deaths <= 8, "a few deaths are enough to find it"


def test_a_suspect_runs_alone():
    stub = StubWorkers(2, lambda unit: 1.0, kills=lambda _, held, __: 7 in held[0].requests)
    alone = []
    give = stub.give

    def watch(worker, unit, *rest):
        if 7 in unit.requests:
            alone.append(not stub.held[worker])
        elif any(7 in held.requests for held in stub.held[worker]) and stub.deaths >= 2:
            raise AssertionError("something was given to the worker of a suspect")
        give(worker, unit, *rest)

    stub.give = watch
    run(stub, cut([8] * 24, 2))
    assert alone[-3:] == [True] * 3


def test_the_window_closes_towards_the_end():
    ledger = Ledger(cut([8] * 24, 2), 2, POLICY)
    assert ledger.window() == 48
    given = []
    while (unit := ledger.next_for(0)) is not None:
        given.append(unit)
    assert len(given) == 6, "half of an even share"
    for unit in given[:5]:
        ledger.finish(0, unit)
    assert ledger.window() == 38
    whole = Ledger(cut([8] * 24, 2), 2, Policy(most_samples=256, held_back=0.0, tries=3))
    assert sum(whole.next_for(0) is not None for _ in range(24)) == 12, "an even share"
    small = Ledger(cut([8] * 24, 2), 2, Policy(most_samples=4, held_back=0.0, tries=3))
    assert sum(small.next_for(0) is not None for _ in range(24)) == 1, "a unit is never cut for its size"
