"""Scheduler, prefill queue and cache under random events, against a simple model of what every row must read. There
is no network: a key is the name of what wrote it."""

import random
from itertools import product
from os.path import commonprefix

import pytest
import torch
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from ouro_rl.core.kv_rule import KVRule
from ouro_rl.core.rollout import Prompt, RolloutRequest
from ouro_rl.model.configuration_ouro import OuroConfig
from rollout_workers.engine.kv_cache import KVCache
from rollout_workers.engine.sampling.completion import Completion
from rollout_workers.engine.scheduling import prefix_tree as prefixes
from rollout_workers.engine.scheduling import scheduler
from rollout_workers.engine.scheduling.prefill import Prefill, PrefillQueue, Task
from rollout_workers.engine.scheduling.prefix_tree import prefix_tree
from rollout_workers.engine.scheduling.scheduler import Scheduler

MOST_NEW = 6


def make_requests(rng, groups):
    """Short prompts over two tokens, so that many share a prefix."""
    return [
        RolloutRequest(
            prompt=Prompt(index=i, token_ids=tuple(rng.randrange(2) for _ in range(rng.randint(1, 9)))),
            seeds=tuple(range(rng.randint(1, 3))),
        )
        for i in range(groups)
    ]


class Machine(RuleBasedStateMachine):
    """The engine's loop with names instead of keys: ("prompt", tokens so far, loop) or (sample, position, loop)."""

    @initialize(seed=st.integers(0, 2**32), loops=st.integers(1, 4), kv_rule=st.sampled_from(KVRule))
    def begin(self, seed, loops, kv_rule):
        self.rng = rng = random.Random(seed)
        requests = make_requests(rng, groups=rng.randint(1, 8))
        config = OuroConfig(
            vocab_size=2, hidden_size=4, intermediate_size=4, num_hidden_layers=1, num_attention_heads=1,
            total_ut_steps=loops,
        )  # fmt: skip
        longest = max(len(request.prompt.token_ids) - 1 + MOST_NEW for request in requests)
        pages = rng.choice((1 + longest * loops, 1 + 2 * longest * loops, 500))
        self.max_batch = rng.randint(1, 6)
        self.cache = KVCache(
            config, slots=2 * self.max_batch + rng.choice((0, 3)), dtype=torch.float64, device=torch.device("cpu"),
            max_pages=pages,
        )  # fmt: skip
        self.cache.reshape(longest, loops=loops, rule=kv_rule)
        self.prefill = PrefillQueue(
            torch.nn.Embedding(2, 4).requires_grad_(False),
            rng.choice((None, 1, 3, 10)),
            leaves_gaps=kv_rule.leaves_gaps,
        )
        self.scheduler = Scheduler(
            requests, self.cache, self.prefill, self.max_batch, shares_prefixes=rng.random() < 0.9
        )
        self.samples = self.scheduler.samples
        self.held = rng.sample(range(len(self.samples)), len(self.samples))
        """Orders of the samples that are not queued yet."""
        self.place = {}
        """When each order was queued."""
        self.queue(rng.randint(1, len(self.samples)))
        self.depths = {sample.order: [] for sample in self.samples}
        """The names of the tokens that each sample has."""
        self.beneath = {prefix: sample.prompt_ids for sample in self.samples for prefix in sample.prefix.path()}
        self.live, self.loop, self.done, self.preempted = [], {}, set(), 0
        self.names, self.oldest = {}, None

    def queue(self, count):
        given, self.held = self.held[:count], self.held[count:]
        self.place |= {order: len(self.place) + i for i, order in enumerate(given)}
        self.scheduler.queue(given)

    @precondition(lambda self: self.held)
    @rule(count=st.integers(1, 5))
    def queue_more(self, count):
        self.queue(count)

    def name(self, key):
        return float(self.names.setdefault(key, len(self.names) + 1))

    def key(self, tokens, order, position, loop):
        if order is None or position < len(tokens) - 1:
            return "prompt", tokens[: position + 1], loop
        return order, position, loop

    def owner(self, slot):
        """The prompt of a slot and its sample's order (None: a shared prefix)."""
        if slot in self.scheduler.running:
            sample = self.scheduler.running[slot]
            return sample.prompt_ids, sample.order
        return self.beneath[self.scheduler.prefixes[slot]], None

    def expected(self, slot, position, loop):
        """The names that a row reads, in order."""
        tokens, order = self.owner(slot)
        names = []
        for j in range(position + 1):
            decided = order is not None and len(tokens) - 1 <= j < len(tokens) - 1 + len(self.depths[order])
            depth = self.depths[order][j - len(tokens) + 1] if decided else self.cache.loops
            version = loop if j == position else self.cache.rule.version_read(loop, depth)
            if version is not None:
                names.append(self.name(self.key(tokens, order, j, version)))
        return names

    def completion(self, order):
        depths = tuple(self.depths[order])
        return Completion(token_ids=(0,) * len(depths), depths=depths)

    @precondition(lambda self: self.scheduler.waiting or self.scheduler.running)
    @rule(wish=st.integers(0, 3))
    def one_pass(self, wish):
        while (admission := self.scheduler.admit()) is not None:
            assert admission.sample.completion == self.completion(admission.sample.order)
            self.loop[admission.slot] = 1
        self.live += self.prefill.start()
        while self.cache.available < len(self.live):
            if not self.scheduler.evict():
                slot = self.scheduler.youngest()
                assert len(self.scheduler.running) > 1, "the oldest gave its pages back"
                self.scheduler.preempt(slot, self.completion(self.scheduler.running[slot].order))
                self.live = [other for other in self.live if other != slot]
                self.preempted += 1
        assert self.live or self.prefill.running, "nothing runs"
        self.run_rows()
        self.prefill.advance(torch.zeros(sum(map(len, self.prefill.running)), 4))
        ended = [slot for slot in self.live if self.leave_or_go_on(slot, wish)]
        self.take_out(ended)

    def run_rows(self):
        """Write the names of all rows, then check what each row reads."""
        slots = torch.tensor(self.live, dtype=torch.int64)
        loops = torch.tensor([self.loop[slot] for slot in self.live], dtype=torch.int64)
        positions = []
        for slot in self.live:
            tokens, order = self.owner(slot)
            positions.append(len(tokens) - 1 + len(self.depths[order]))
        positions = torch.tensor(positions, dtype=torch.int64)
        pages, contexts = self.cache.extend(slots, loops, positions)
        waves = self.prefill.running
        slots = torch.cat([slots, *(wave.row_slots for wave in waves)])
        loops = torch.cat([loops, *(torch.full_like(wave.positions, wave.loop) for wave in waves)])
        positions = torch.cat([positions, *(wave.positions for wave in waves)])
        contexts = torch.cat([contexts, *(wave.contexts for wave in waves)])
        line_pages = self.cache.table[slots, loops - 1, contexts - 1]
        assert torch.equal(line_pages[: len(pages)], pages) and line_pages.all()
        rows = list(zip(slots.tolist(), positions.tolist(), loops.tolist(), contexts.tolist(), strict=True))
        names = [self.name(self.key(*self.owner(slot), position, loop)) for slot, position, loop, _ in rows]
        keys = torch.tensor(names, dtype=torch.float64).view(-1, 1, 1).expand(-1, 1, 4)
        self.cache.write(0, line_pages, keys, keys)
        for slot, position, loop, context in rows:
            read = self.cache.read(torch.tensor([slot]), torch.tensor([loop]), context)[0]
            assert self.cache.keys[0][read, 0, 0].tolist() == self.expected(slot, position, loop)

    def leave_or_go_on(self, slot, wish):
        """Draw the exit at random. True when the sample ended."""
        order, loop = self.scheduler.running[slot].order, self.loop[slot]
        leaves = loop == self.cache.loops or (self.rng.random() < 0.4 and not self.cache.rule.runs_all_loops)
        self.loop[slot] = 1 if leaves else loop + 1
        if leaves:
            self.depths[order].append(loop)
        return leaves and (len(self.depths[order]) == MOST_NEW or self.rng.random() < 0.05 * wish)

    def take_out(self, slots):
        if slots:
            self.done |= {sample.order for sample in self.scheduler.finish(slots)}
            self.live = [slot for slot in self.live if slot not in slots]

    @precondition(lambda self: self.scheduler.running)
    @rule(data=st.data())
    def cancel(self, data):
        running = sorted(self.scheduler.running)
        self.take_out(data.draw(st.lists(st.sampled_from(running), unique=True, max_size=2)))

    @precondition(lambda self: len(self.scheduler.running) > 1)
    @rule()
    def preempt(self):
        slot = self.scheduler.youngest()
        self.scheduler.preempt(slot, self.completion(self.scheduler.running[slot].order))
        self.live = [other for other in self.live if other != slot]

    @precondition(lambda self: hasattr(self, "scheduler") and not self.prefill.running)
    @rule()
    def retire(self):
        """As when weights change under running samples that keep their pages."""
        for slot in [slot for slot in reversed(self.scheduler.running) if slot not in self.live]:
            self.scheduler.requeue(slot, self.completion(self.scheduler.running[slot].order))
        self.scheduler.retire_prefixes()
        assert not self.scheduler.prefixes and not self.prefill.waiting

    @precondition(lambda self: hasattr(self, "scheduler"))
    @rule()
    def evict(self):
        self.scheduler.evict()

    @invariant()
    def holds(self):
        if not hasattr(self, "scheduler"):
            return
        self.cache.check_integrity()
        running = [sample.order for sample in self.scheduler.running.values()]
        waiting = [sample.order for sample in self.scheduler.waiting]
        assert running + waiting == sorted(running + waiting, key=self.place.__getitem__), "somebody was overtaken"
        assert sorted([*running, *waiting, *self.done, *self.held]) == list(range(len(self.samples)))
        assert len(self.scheduler.free_slots) + len(running) == self.max_batch
        shared = {slot for slot in self.cache.references if slot >= self.max_batch}
        assert shared >= self.scheduler.prefixes.keys(), "the others are retired, and read by samples"
        assert len(self.scheduler.free_prefix_slots) + len(shared) == self.cache.slots - self.max_batch
        assert self.prefill.rows is None or sum(map(len, self.prefill.running)) <= self.prefill.rows
        for prefix in self.beneath:
            assert prefix.waiting == sum(prefix in sample.prefix.path() for sample in self.scheduler.waiting)
        if not running and not waiting:
            assert self.cache.owned == 0

    def teardown(self):
        """All samples end in every case."""
        if hasattr(self, "scheduler"):
            self.queue(len(self.held))
            for _ in range(20_000):
                if not self.scheduler.waiting and not self.scheduler.running:
                    break
                self.one_pass(0)
            self.holds()
            assert self.done == set(self.depths)


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    monkeypatch.setattr(prefixes, "SHARED_BLOCK", 2)
    monkeypatch.setattr(scheduler, "SPARE_TOKENS", 1)


Machine.TestCase.settings = settings(max_examples=40, stateful_step_count=25)
TestRandomEvents = pytest.mark.usefixtures("small_blocks")(Machine.TestCase)


def test_the_prefix_tree_by_hand():
    """With blocks of 2: [1 2 3 4 5 | 6], [1 2 3 4 5 | 7] are one; [1 2 3 9 9 | 9] shares 2; [8 | 8] nothing; [1] has no
    beginning."""
    prompts = [(1, 2, 3, 4, 5, 6), (8, 8), (1, 2, 3, 9, 9, 9), (1, 2, 3, 4, 5, 7), (1,)]
    leaves = prefix_tree(prompts)
    assert [[node.stop for node in leaf.path()] for leaf in leaves] == [[5, 2], [1], [5, 2], [5, 2], []]
    assert leaves[0] is leaves[3] and leaves[0] is not leaves[2]
    assert leaves[0].parent is leaves[2].parent


@pytest.mark.parametrize("seed", range(20))
def test_the_prefix_tree_on_random_prompts(seed):
    rng = random.Random(seed)
    starts = [tuple(rng.randrange(2) for _ in range(rng.choice((1, 5, 12, 20)))) for _ in range(4)]
    prompts = [
        start[: rng.randint(1, len(start))] + tuple(rng.randrange(2) for _ in range(rng.choice((0, 1, 7))))
        for start in rng.choices(starts, k=40)
    ]
    begins, leaves = {}, prefix_tree(prompts)
    for prompt, leaf in zip(prompts, leaves, strict=True):
        path = list(leaf.path())
        assert leaf.stop == len(prompt) - 1
        assert all(below.stop > above.stop for below, above in zip(path, path[1:], strict=False))
        for node in path:
            assert begins.setdefault(node, prompt[: node.stop]) == prompt[: node.stop]
    for first, second in product(range(len(prompts)), repeat=2):
        alike = len(commonprefix([prompts[first][:-1], prompts[second][:-1]]))
        together = max((node.stop for node in set(leaves[first].path()) & set(leaves[second].path())), default=0)
        assert together >= alike // 2 * 2 - 2  # a block may be lost where a third prompt ends


def test_rows_of_a_task_by_hand():
    """Positions 3..7 at depths 3 3 1 2 3, in pieces of 3 and 2, under the rule that leaves gaps."""
    embed = torch.nn.Embedding(9, 2).requires_grad_(False)
    first, rest = Task(slot=5, start=3, tokens=[0, 1, 2, 3, 4], depths=[3, 3, 1, 2, 3]).cut(3)
    assert (first.start, first.depths, rest.start, rest.tokens, rest.depths) == (3, [3, 3, 1], 6, [3, 4], [2, 3])
    for leaves_gaps, contexts in ((False, [[[4, 5, 6], [7, 8]], [[4, 5], [7, 8]], [[4, 5], [8]]]),
                                  (True, [[[4, 5, 6], [7, 8]], [[4, 5], [6, 7]], [[4, 5], [6]]])):  # fmt: skip
        waves = [Prefill([task], embed, leaves_gaps=leaves_gaps) for task in (first, rest)]
        for loop in range(3):
            assert [wave.contexts.tolist() for wave in waves] == contexts[loop]
            assert [piece.rows for wave in waves for piece in wave.pieces()] == [len(rows) for rows in contexts[loop]]
            goes_on = [wave.advance(torch.zeros(len(wave), 2)) for wave in waves]
        assert goes_on == [False, False]
