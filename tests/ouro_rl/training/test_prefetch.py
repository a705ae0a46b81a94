"""The schedule of batches that are sampled ahead: by its formula, under kills, and against the clock, with a source and
weights that cost nothing."""

import io
import random
import threading
import time
from dataclasses import dataclass, field, replace

import pytest
import torch

from ouro_rl.core.errors import RunError
from ouro_rl.core.rollout import Prompt, Rollout, ScoredRollout, WeightChange
from ouro_rl.training.prefetch import BusyTime, Prefetcher
from ouro_rl.training.prompt_order import PromptOrder
from ouro_rl.training.resumable_trainer import RECORDS
from tests.references.patience import HANG_S, comes_true

PROMPTS = [Prompt(index=i, token_ids=(1,)) for i in range(7)]
PER_BATCH = 2


def scored_by(prompt, value, version):
    rollout = Rollout(
        prompt_index=prompt.index, sample_index=0, prompt_ids=(1,), completion_ids=(2,), token_logprobs=(value,),
        depths=(1,), depth_logprobs=(-1.0,), policy_version=version, temperature=1.0, finish_reason="stop",
    )  # fmt: skip
    return ScoredRollout(rollout=rollout, completion="x", rewards={"r": 1.0}, statuses={"r": "correct"}, reward=1.0)


@dataclass
class Workers:
    """Rollout workers that record the weight that they sample with; never two calls at a time."""

    sleep_s: float = 0.0
    fails: frozenset = frozenset()
    hold: threading.Semaphore | None = None
    meet: threading.Barrier | None = None
    """From the second batch on, sampling meets the updates here."""
    have: tuple[float, int] | None = None
    steps: list = field(default_factory=list)
    versions: list = field(default_factory=list)
    busy: threading.Lock = field(default_factory=threading.Lock)

    def publish(self, weights, version):
        assert self.busy.acquire(blocking=False), "weights change under a sample"
        self.have = weights["w"].item(), version
        self.versions.append(version)
        self.busy.release()

    def sample(self, prompts, step):
        assert self.busy.acquire(blocking=False)
        before = self.have
        self.steps.append(step)
        if self.meet is not None and step > 1:
            self.meet.wait(HANG_S)
        time.sleep(self.sleep_s)
        if self.hold is not None:
            assert self.hold.acquire(timeout=HANG_S)
        assert self.have == before
        self.busy.release()
        if step in self.fails:
            raise RunError(f"step {step}")
        return [scored_by(prompt, *before) for prompt in prompts], {"time/rollout_s": self.sleep_s, "tokens/s": 1.0}


def prefetcher_of(workers, updates, *, per_batch=1, staleness=0):
    order = PromptOrder(len(PROMPTS), PER_BATCH, seed=3)
    return Prefetcher(
        workers.sample, workers.publish, prompts_of=lambda number: [PROMPTS[place] for place in order.batch(number)],
        batches=-(-updates // per_batch), updates_per_batch=per_batch, max_staleness=staleness,
    )  # fmt: skip


def weights_after(update):
    return {"w": torch.tensor(float(update) ** 2)}


@dataclass
class Run:
    """A trainer without a model: what it has taken, and what its last checkpoint holds."""

    updates: int
    per_batch: int
    staleness: int
    every: int = 1
    taken: list = field(default_factory=list)
    done: int = 0
    saved: bytes | None = None

    def live(self, workers, until):
        """Go on from the last checkpoint up to a kill, after the batch of an update was taken."""
        prefetcher = prefetcher_of(workers, self.updates, per_batch=self.per_batch, staleness=self.staleness)
        if self.saved is not None:
            with torch.serialization.safe_globals(RECORDS):
                prefetcher.restore(torch.load(io.BytesIO(self.saved)), range(100))
        del self.taken[-(-self.done // self.per_batch) :]
        for update in range(self.done, self.updates):
            if update % self.per_batch == 0:
                self._take(prefetcher, update)
            if update == until:
                break
            if (update + 1) % self.every == 0 or update + 1 == self.updates:
                file = io.BytesIO()
                torch.save(prefetcher.wait(), file)
                self.done, self.saved = update + 1, file.getvalue()
        prefetcher.close()

    def _take(self, prefetcher, update):
        weights = {"w": torch.tensor(weight_after(update))}
        batch = prefetcher.take(update // self.per_batch, weights, update)
        if self.staleness >= self.per_batch:
            weights["w"].fill_(-1.0)  # a trainer changes its weights in place
        prompts = [item.rollout.prompt_index for item in batch.scored]
        (value,) = {item.rollout.token_logprobs[0] for item in batch.scored}
        self.taken.append((batch.number, prompts, value, batch.version, batch.timings["staleness/dropped"]))


def weight_after(update):
    return float(update) ** 2


def schedule(updates, per_batch, staleness):
    """What a run takes: (number, prompts, weight and version that sampled, dropped)."""
    order, ahead = PromptOrder(len(PROMPTS), PER_BATCH, seed=3), staleness // per_batch
    for number in range(-(-updates // per_batch)):
        version = max(0, number - ahead) * per_batch
        yield number, [PROMPTS[place].index for place in order.batch(number)], weight_after(version), version, 0


@pytest.mark.parametrize("hundred", range(3))
def test_a_run_killed_at_random_takes_the_batches_of_the_schedule(hundred):
    """Each batch once, in order, sampled by the weights of the formula, whenever the run is killed."""
    for number in range(100 * hundred, 100 * hundred + 100):
        draw = random.Random(number)
        per_batch = draw.randint(1, 3)
        staleness = draw.choice([0, per_batch, per_batch + 1, 3 * per_batch])
        updates = draw.randint(1, 12)
        run = Run(updates=updates, per_batch=per_batch, staleness=staleness, every=draw.randint(1, 4))
        for _ in range(draw.randint(0, 3)):
            run.live(Workers(), until=draw.randint(0, updates - 1))
        run.live(Workers(), until=updates)
        assert run.taken == list(schedule(updates, per_batch, staleness)), number


def test_new_weights_wait_for_the_batches_before_them_and_are_those_of_their_moment():
    """At staleness 2, with sampling that takes its time, so that batches queue up (`Workers` asserts the rest)."""
    workers, run = Workers(sleep_s=0.01), Run(updates=8, per_batch=1, staleness=2)
    prefetcher = prefetcher_of(workers, 8, staleness=2)
    for update in range(8):
        run._take(prefetcher, update)
    prefetcher.close()
    assert run.taken == list(schedule(8, 1, 2)) and workers.versions == [0, 1, 2, 3, 4, 5]
    assert workers.steps == list(range(1, 9))


@pytest.mark.parametrize("staleness", [0, 1])
def test_sampling_ahead_overlaps_with_the_updates(staleness):
    """Each update and the sampling of the next batch wait for each other: in turns, neither would go on."""
    updates = 4
    workers = Workers(sleep_s=0.2, meet=threading.Barrier(2) if staleness else None)
    prefetcher, spent = prefetcher_of(workers, updates, staleness=staleness), []
    for update in range(updates):
        spent.append(prefetcher.take(update, {"w": torch.tensor(0.0)}, update).timings)
        if workers.meet is not None and update + 1 < updates:
            workers.meet.wait(HANG_S)
            assert comes_true(prefetcher._futures[update + 1].done)
    prefetcher.close()
    first, *later = [row["time/overlapped_s"] for row in spent]
    assert first == 0 and all(overlapped > 0 if staleness else overlapped == 0 for overlapped in later)
    assert all(0 < row["workers/busy"] <= 1 for row in spent)


def test_an_error_is_raised_when_its_batch_is_taken_and_not_kept_by_a_checkpoint():
    for staleness in (0, 2):
        prefetcher = prefetcher_of(Workers(fails=frozenset([2])), 4, staleness=staleness)
        prefetcher.take(0, {"w": torch.tensor(0.0)}, 0)
        assert [batch.number for batch in prefetcher.wait()] == ([2] if staleness else [])
        with pytest.raises(RunError, match="step 2"):
            prefetcher.take(1, {"w": torch.tensor(0.0)}, 1)
        prefetcher.close()


def test_rollouts_of_other_weights_are_refused():
    workers = Workers()
    prefetcher = prefetcher_of(workers, 4)
    prefetcher.publish = lambda weights, version: workers.publish(weights, version + 1)
    with pytest.raises(RunError, match="batch 0: rollouts have policy version 1, but 0 was published"):
        prefetcher.take(0, {"w": torch.tensor(0.0)}, 0)


@pytest.mark.parametrize("staleness", [0, 1, 3])
def test_too_old_rollouts_of_a_checkpoint_are_dropped_counted_and_sampled_again(staleness):
    """A run at staleness 2, stopped after 3 updates and resumed at another: at 0 and 1 nothing that was sampled ahead
    can be used."""
    run = Run(updates=8, per_batch=1, staleness=2, every=3)
    run.live(Workers(), until=3)
    assert run.done == 3
    run.staleness, workers = staleness, Workers()
    run.live(workers, until=8)
    assert [(number, prompts) for number, prompts, *_ in run.taken] == [row[:2] for row in schedule(8, 1, 0)]
    versions, dropped = [row[3] for row in run.taken[3:]], [row[4] for row in run.taken[3:]]
    if staleness == 3:  # one more ahead: batches 3 and 4 were there, 5 and 6 are sampled at once
        assert versions == [1, 2, 3, 3, 4] and not any(dropped) and workers.steps == [6, 7, 8]
    else:
        assert versions == [max(3, number - staleness) for number in range(3, 8)]
        assert dropped == [2 * PER_BATCH, 0, 0, 0, 0] and workers.steps == [4, 5, 6, 7, 8]


@dataclass
class WorkersInFlight(Workers):
    """They take weights also while they sample, and say so."""

    now: int | None = None
    calls: list = field(default_factory=list)
    begun: list = field(default_factory=list)

    def in_flight(self, weights, version):
        self.calls.append(version)
        self.now = version

    def sample(self, prompts, step):
        began = self.now
        self.begun.append(step)
        assert self.hold is not None and self.hold.acquire(timeout=HANG_S)
        self.steps.append(step)
        changes = () if self.now == began else (WeightChange(start=0, version=self.now, recomputed=False),)
        return [
            replace(item, rollout=replace(item.rollout, weight_changes=changes))
            for prompt in prompts
            for item in [scored_by(prompt, 0.0, began)]
        ], {"tokens/s": 1.0}


def in_flight_prefetcher(workers, staleness=1):
    prefetcher = prefetcher_of(workers, 6, staleness=staleness)
    prefetcher.in_flight = workers.in_flight
    return prefetcher


def versions_of(batch):
    (versions,) = {
        (item.rollout.policy_version, *(change.version for change in item.rollout.weight_changes))
        for item in batch.scored
    }
    return versions


def test_weights_in_flight_reach_the_batch_that_is_under_way():
    workers = WorkersInFlight(hold=threading.Semaphore(1))
    prefetcher = in_flight_prefetcher(workers)
    assert versions_of(prefetcher.take(0, {"w": torch.tensor(0.0)}, 0)) == (0,)
    assert comes_true(lambda: workers.begun == [1, 2])
    taken = []
    taker = threading.Thread(target=lambda: taken.append(prefetcher.take(1, {"w": torch.tensor(1.0)}, 1)))
    taker.start()
    assert comes_true(lambda: workers.calls == [0, 1]), "it does not wait for the batch"
    workers.hold.release()
    taker.join(HANG_S)
    (batch,) = taken
    assert batch.version == 0 and versions_of(batch) == (0, 1) and batch.timings["time/sync_s"] >= 0
    workers.hold.release(9)
    prefetcher.close()
    assert workers.versions == [], "nothing is published in turns, and so no older weights"


def test_rollouts_of_weights_that_were_never_in_flight_are_refused():
    workers = WorkersInFlight(hold=threading.Semaphore(9))
    prefetcher = in_flight_prefetcher(workers)
    prefetcher.in_flight = lambda weights, version: workers.in_flight(weights, version + 1)
    with pytest.raises(RunError, match="batch 0: rollouts have policy version 1, but 0 was published"):
        prefetcher.take(0, {"w": torch.tensor(0.0)}, 0)
    prefetcher.close()


def test_closing_leaves_out_what_has_not_begun():
    workers = Workers(hold=threading.Semaphore(0))
    prefetcher = prefetcher_of(workers, 4, staleness=3)
    taker = threading.Thread(target=lambda: prefetcher.take(0, {"w": torch.tensor(0.0)}, 0))
    taker.start()
    assert comes_true(lambda: workers.steps == [1])
    workers.hold.release()
    taker.join()
    assert comes_true(lambda: workers.steps == [1, 2])
    closing = threading.Thread(target=prefetcher.close)
    closing.start()
    assert comes_true(lambda: any(future.cancelled() for future in prefetcher._futures.values()))
    workers.hold.release()
    closing.join(HANG_S)
    assert workers.steps == [1, 2] and not closing.is_alive()


def test_busy_time_is_a_share_of_the_time_since_it_was_last_asked(monkeypatch):
    now = [10.0]
    monkeypatch.setattr("ouro_rl.training.prefetch.time.monotonic", lambda: now[0])
    busy = BusyTime()
    now[0] = 11.0
    with busy:
        now[0] = 14.0
        assert busy.share() == 3 / 4
        now[0] = 15.0
    now[0] = 16.0
    assert busy.share() == 1 / 2
    now[0] = 20.0
    assert busy.share() == 0
