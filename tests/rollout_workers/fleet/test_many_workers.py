"""A simulated fleet of a thousand workers: what giving out work costs the driver."""

import random
import time

import pytest

from rollout_workers.fleet.dispatch import dispatch
from rollout_workers.fleet.ledger import Ledger, Policy
from rollout_workers.fleet.units import cut
from tests.references.stub_workers import StubWorkers

GROUPS_PER_WORKER, SIZE = 4, 16


class CountingLedger(Ledger):
    asked = 0

    def next_for(self, worker):
        self.asked += 1
        return super().next_for(worker)


def run(workers, kills=lambda *_: False):
    """(ledger, number of units, workers) after a call of 4 groups of 16 for each worker, of mixed lengths."""
    draw = random.Random(workers)
    stub = StubWorkers(workers, lambda unit: draw.uniform(1, 8), kills=kills)
    units = cut([SIZE] * (GROUPS_PER_WORKER * workers), workers)
    ledger = CountingLedger(units, workers, Policy(most_samples=256, held_back=0.5, tries=3))
    finished = []
    dispatch(
        stub, ledger, tuple, on_finished=lambda unit, _: finished.extend(unit.places), on_set_aside=None,
        on_poll=lambda: None,
    )  # fmt: skip
    assert sorted(finished) == list(range(SIZE * GROUPS_PER_WORKER * workers))
    return ledger, len(units), stub


@pytest.mark.parametrize("workers", [2, 10, 100])
def test_a_worker_is_asked_when_it_has_finished_something_and_not_after_every_unit_of_the_others(workers):
    ledger, units, _ = run(workers)
    assert ledger.asked <= 2 * units + workers


def test_what_a_dead_worker_had_goes_to_workers_that_had_nothing_left():
    """The only long-lived worker gets the work of those that die."""
    ledger, _, stub = run(20, kills=lambda worker, held, rng: worker and rng.random() < 0.2)
    assert stub.deaths > 5 and ledger.unfinished == 0


@pytest.mark.slow
def test_a_thousand_workers(capsys):
    for workers in (10, 100, 1000):
        started = time.process_time()
        ledger, units, stub = run(workers)
        spent = time.process_time() - started
        with capsys.disabled():
            print(
                f"\n{workers} workers, {units} units: {spent:.2f} s of processor time, {1e6 * spent / units:.0f} us "
                f"per unit, in {stub.now:.0f} simulated seconds"
            )
        assert ledger.asked <= 2 * units + workers
