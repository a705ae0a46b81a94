"""Passes of static shapes that ask nothing of the host: what a CUDA graph can repeat.

The ordinary pass compacts: it asks the device which rows leave, and gives the head those alone. A static pass runs the rows of a
*bucket*, always as many, and the same operations whatever they hold. Gate, exits, tokens, next embeddings, pages, slots and positions
are all worked out on the device. A row that has nothing to do (its sample has ended, the bucket is not full, or it does not leave and so
gets no token) does the same work on the *dummy slot*, one more than there are samples, whose one page is there to be overwritten. The head
sees every row of the bucket, which costs some 8 % more arithmetic at the published sizes and reads the same weights.

The host looks every few passes: takes out what has ended, admits, makes sure of the pages of the next passes. Passes with prompts in
them are ordinary ones. Sampler, cache and layers are the same code in both, so a sample does not depend on which kind it met.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from ouro_rl.core.sampling_params import SamplingParams
from rollout_workers.engine.attention import Rows
from rollout_workers.engine.forward import Forward
from rollout_workers.engine.graphs.cuda_graph import GraphedPass, GraphMemory
from rollout_workers.engine.sampling.sampler import Sampler

LOOK_EVERY = 8
"""Passes between two looks of the host, at most. A sample that ends waits half as many on average."""
LEAST_BUCKET = 8
KEPT = 2
"""Sets of sampling parameters whose graphs are kept: training's and an evaluation's."""

RunPass = Callable[[], None]
Wrap = Callable[[RunPass], RunPass]
"""Makes something that does the same from a pass: a graph of it."""


def obstacle(forward: Forward, params: SamplingParams) -> str | None:
    """What of a call needs the host in every pass; None when nothing does."""
    if params.filters.logit_processors:
        return "logit processors run on the host"
    if params.filters.top_p < 1:
        return "top_p looks at as many tokens as it needs"
    if params.early_stop is not None:
        return "early_stop looks at completions on the host"
    if forward.attention.asks_the_host and forward.cache.table.device.type == "cuda":
        return "attention in plain torch looks at the lengths"
    return None


class StaticPasses:
    """The passes of calls with the same `params`; `bucket` slots at a time. Keeps its tensors, and so its graphs, between calls."""

    def __init__(self, forward: Forward, params: SamplingParams, max_batch: int, wrap: Wrap):
        self.forward, self.cache, self.max_batch, self.wrap = forward, forward.cache, max_batch, wrap
        self.sampler = Sampler(forward.model, params, max_batch + 1)
        self.dummy_slot = max_batch
        self.sampler.loops[max_batch] = 1
        device = self.cache.table.device
        self.dummy = torch.tensor([max_batch], device=device)
        self.dummy_page = torch.zeros(1, dtype=torch.int64, device=device)
        self.running = torch.zeros(max_batch + 1, dtype=torch.bool, device=device)
        """By slot: has not ended. Never the dummy one."""
        self.counters = torch.zeros(3, dtype=torch.int64, device=device)
        """Free pages; rows and tokens since the host looked."""
        self.passes: dict[int, tuple[Tensor, RunPass]] = {}
        """By bucket: its slots, and its pass."""
        self.addresses: tuple = ()
        self.copies: list[Tensor] = []
        """Of weights, that graphs may read."""

    def open(self) -> None:
        """Begin a call: bring copies of weights up to date, and take a page for the dummy slot."""
        copies = self.forward.ops.refresh()
        if not set(map(id, self.copies)) <= set(map(id, copies)):  # nobody keeps one of them up to date any more
            self.passes.clear()
        self.cache.open(self.dummy_slot)
        page, _ = self.cache.extend(self.dummy, torch.ones_like(self.dummy), torch.zeros_like(self.dummy))
        self.dummy_page.copy_(page)

    def close(self) -> None:
        """End a call."""
        self.copies = self.forward.ops.refresh()
        self.cache.close([self.dummy_slot])

    def run(self, live: Tensor) -> tuple[int, int, int, list[int]]:
        """A few passes over the samples in slots `live` [n], as many as there are pages for: at least n. Returns how many passes, rows
        and tokens that were, and the slots whose completion ended."""
        count, cache = len(live), self.cache
        passes = int(min(LOOK_EVERY, cache.available // count))
        cache.make_room(passes * count)
        slots, run_pass = self._bucket(count)
        slots.fill_(self.dummy_slot)
        slots[:count] = live
        self.running.zero_()
        self.running.index_fill_(0, live, True)
        self.counters.zero_()
        self.counters[:1].fill_(cache.free_count)
        for _ in range(passes):
            run_pass()
        report = torch.cat([self.counters, live, self.running.index_select(0, live)]).tolist()  # waits for the device
        free, rows, tokens = report[:3]
        cache.note_free(free)
        ended = [slot for slot, goes_on in zip(report[3 : 3 + count], report[3 + count :], strict=True) if not goes_on]
        return passes, rows, tokens, ended

    def _bucket(self, count: int) -> tuple[Tensor, RunPass]:
        """The least bucket for so many rows. Graphs whose tensors have moved (wider table, larger pools, other weights) are dropped."""
        self.forward.angles()  # makes them now if they are not wide enough
        addresses = tuple((tensor.data_ptr(), tensor.shape) for tensor in self._tensors())
        if addresses != self.addresses:
            self.passes.clear()
            self.addresses = addresses
        size = LEAST_BUCKET
        while size < count:
            size *= 2
        size = min(size, self.max_batch)
        if size not in self.passes:
            slots = torch.full((size,), self.dummy_slot, device=self.dummy.device)
            self.passes[size] = slots, self.wrap(lambda: self._pass(slots))
        return self.passes[size]

    def _tensors(self) -> Iterator[Tensor]:
        """What a pass reads or writes, and this object does not hold for good."""
        cache = self.cache
        yield from (cache.table, cache.free, cache.counts, cache.loop_numbers, *cache.keys, *cache.values)
        yield from self.forward.angles()
        yield from self.forward.model.parameters()

    def _pass(self, slots: Tensor) -> None:
        """One pass over the slots of a bucket. Nothing here may depend on what a tensor holds: it is captured once, for all."""
        cache, sampler = self.cache, self.sampler
        running = self.running.index_select(0, slots)
        rows = torch.where(running, slots, self.dummy)
        loops, positions, states = (
            part.index_select(0, rows) for part in (sampler.loops, sampler.positions, sampler.states)
        )
        pages = self._take_pages(running)
        if cache.rule.leaves_gaps:
            cache.counts.index_fill_(0, self.dummy, 0)  # its block-table row keeps one entry
        contexts = cache.enter(pages, rows, loops, positions)
        if cache.rule.leaves_gaps:
            cache.counts[self.dummy_slot, :1].fill_(1)
        planned = Rows(slots=rows, loops=loops, positions=positions, contexts=contexts, samples=len(rows))
        rows, ended = sampler.static_step(rows, self.forward(planned, pages, states), self.dummy)
        self.running.index_copy_(0, rows, ~ended)
        self.running.index_fill_(0, self.dummy, False)
        self.counters[1:2].add_(running.sum())
        self.counters[2:3].add_((rows != self.dummy).sum())

    def _take_pages(self, running: Tensor) -> Tensor:
        """A free page for each row that runs, from the end of the list, and the dummy slot's for the others: bool [n] -> [n]."""
        rank = running.long().cumsum(0)
        places = (self.counters[:1] - rank).clamp(min=0)
        pages = torch.where(running, self.cache.free.index_select(0, places), self.dummy_page)
        self.counters[:1].sub_(rank[-1:])
        return pages


class StaticChoice:
    """Whether an engine's calls run static passes, and the passes of its last kinds of calls.

    `wanted`: None says where they pay, on CUDA devices."""

    def __init__(self, forward: Forward, max_batch: int, wanted: bool | None, wrap: Wrap | None = None):
        device = forward.cache.table.device
        self.forward, self.max_batch = forward, max_batch
        self.wanted = device.type == "cuda" if wanted is None else wanted
        if wrap is None and self.wanted and device.type == "cuda":
            memory = GraphMemory(device)
            wrap = lambda run_pass: GraphedPass(run_pass, memory)  # noqa: E731
        self.wrap: Wrap = wrap or (lambda run_pass: run_pass)
        self.known: dict[SamplingParams, StaticPasses] = {}
        """The last used at the end."""

    @property
    def spare_pages(self) -> int:
        """Pages that samples cannot have."""
        return int(self.wanted)

    @property
    def description(self) -> str | None:
        if not self.wanted:
            return None
        graphs = "as CUDA graphs" if self.forward.cache.table.device.type == "cuda" else "without CUDA graphs"
        return f"passes of static shapes {graphs}, prompts apart"

    def open(self, params: SamplingParams) -> StaticPasses | None:
        """Begin a call. None: it takes ordinary passes; says why where static ones were wanted."""
        if not self.wanted:
            return None
        if why := obstacle(self.forward, params):
            warnings.warn(f"rollouts run ordinary passes, not CUDA graphs: {why}", stacklevel=2)
            return None
        static = self.known.pop(params, None) or StaticPasses(self.forward, params, self.max_batch, self.wrap)
        self.known[params] = static
        if len(self.known) > KEPT:
            del self.known[next(iter(self.known))]
        static.open()
        return static

    def forget(self) -> None:
        """Drop all passes, whatever state they are in."""
        self.known.clear()
