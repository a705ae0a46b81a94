"""A call on one worker: units that are given while others run, errors, and the end."""

import threading
import time

import pytest

from ouro_rl.core.engine_config import EngineConfig
from ouro_rl.core.errors import RunError
from ouro_rl.core.sampling_params import SamplingParams
from rollout_workers.fleet.session import Session
from rollout_workers.fleet.units import cut
from rollout_workers.worker import RolloutWorker
from tests.references.patience import HANG_S, comes_true
from tests.references.tiny_models import batch_tolerance, random_model
from tests.rollout_workers.engine.test_engine import assert_same, make_requests


class StubGeneration:
    """Every step ends the oldest sample; `gate` lets steps through one at a time."""

    def __init__(self, count, gate=None, fails_at=None):
        self.tokens = self.finished = 0
        self.rollouts = [None] * count
        self.waiting, self.gate, self.fails_at, self.left = [], gate, fails_at, False
        self.version, self.began = 0, {}

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.left = True

    @property
    def done(self):
        return not self.waiting

    def queue(self, places):
        self.waiting += places

    def change_weights(self, load, version, cache):
        loaded = load()
        self.version = version, cache
        return loaded

    def advance(self):
        if self.gate is not None:
            self.gate.acquire()
        if self.finished == self.fails_at:
            raise ValueError("a test")
        self.tokens += 3
        self.finished += 1
        place = self.waiting.pop(0)
        self.rollouts[place] = f"rollout {place}"
        self.began[place] = self.version
        return 1


def test_units_come_back_one_by_one_also_while_others_are_given():
    gate = threading.Semaphore(0)
    session = Session(StubGeneration(6, gate))
    first, second = session.give((0, 1)), session.give((4,))
    gate.release(2)
    assert first.result(HANG_S) == ["rollout 0", "rollout 1"] and not second.done()
    third = session.give((5, 3))
    gate.release(3)
    assert third.result(HANG_S) == ["rollout 5", "rollout 3"] and second.result(HANG_S) == ["rollout 4"]
    assert comes_true(lambda: session.pulse().steps == 5)
    pulse = session.pulse()
    assert (pulse.tokens, pulse.finished, pulse.busy) == (15, 5, False)
    session.close()


def test_it_is_busy_only_while_it_has_units():
    gate = threading.Semaphore(0)
    session = Session(StubGeneration(1, gate))
    time.sleep(0.2)
    assert session.pulse().busy_s == 0 and not session.pulse().busy
    unit = session.give((0,))
    assert session.pulse().busy
    time.sleep(0.2)
    gate.release()
    unit.result(HANG_S)
    assert comes_true(lambda: session.pulse().busy_s >= 0.15)
    session.close()


def test_an_error_is_the_answer_of_all_units():
    generation = StubGeneration(3, fails_at=1)
    session = Session(generation)
    units = [session.give((0, 1)), session.give((2,))]
    for unit in units:
        with pytest.raises(ValueError, match="a test"):
            unit.result(HANG_S)
    with pytest.raises(ValueError, match="a test"):
        session.give((2,)).result(HANG_S)
    session.close()
    assert generation.left, "the engine is free again"


def test_weights_change_between_two_passes_and_when_there_is_nothing_to_do():
    gate = threading.Semaphore(0)
    generation = StubGeneration(3, gate)
    session = Session(generation)
    assert session.change_weights(lambda: "first", 1, "keep").result(HANG_S) == "first"
    unit = session.give((0, 1, 2))
    gate.release()
    assert comes_true(lambda: generation.finished == 1)
    change = session.change_weights(lambda: "second", 2, "recompute")
    gate.release(2)
    assert unit.result(HANG_S) and change.result(HANG_S) == "second"
    assert generation.began[0] == (1, "keep") and generation.began[2] == (2, "recompute")
    session.close()
    with pytest.raises(RunError, match="has ended"):
        session.change_weights(lambda: "third", 3, "keep").result(HANG_S)


def test_weights_that_do_not_load_end_the_call():
    session = Session(StubGeneration(1, threading.Semaphore(0)))

    def load():
        raise RunError("they do not fit")

    changes = [session.change_weights(load, 1, "keep") for _ in range(2)]
    for answer in [*changes, session.give((0,))]:
        with pytest.raises(RunError, match="they do not fit"):
            answer.result(HANG_S)
    session.close()


def test_closing_cancels_what_is_in_flight():
    gate = threading.Semaphore(0)
    generation = StubGeneration(2, gate)
    session = Session(generation)
    unit = session.give((0, 1))
    closing = threading.Thread(target=session.close)
    closing.start()
    gate.release()  # the pass that is under way
    closing.join(HANG_S)
    assert not closing.is_alive() and generation.left
    with pytest.raises(RunError, match="has ended"):
        unit.result(HANG_S)
    with pytest.raises(RunError, match="has ended"):
        session.give((1,)).result(HANG_S)


@pytest.mark.parametrize("workers", [1, 2, 4])
def test_any_number_of_workers_in_any_order_gives_the_same_rollouts(workers):
    model = random_model(3, gate_scale=2.0)
    requests, params = make_requests([5, 1, 12, 3, 7], group=3), SamplingParams(max_new_tokens=8, stop_token_ids=(2,))

    def worker():
        made = RolloutWorker(model.config.to_dict(), EngineConfig(max_batch=4))
        made.load_weights(model.state_dict(), 5)
        return made

    expected = worker().rollout(requests, params)
    sessions = [Session(worker().start(requests, params)) for _ in range(workers)]
    found = {}
    units = cut([3] * 5, workers)
    answers = [sessions[i % workers].give(unit.places) for i, unit in reversed(list(enumerate(units)))]
    for unit, answer in zip(reversed(units), answers, strict=True):
        found |= dict(zip(unit.places, answer.result(HANG_S), strict=True))
    for session in sessions:
        session.close()
    assert_same([found[place] for place in range(15)], expected, batch_tolerance(model))
