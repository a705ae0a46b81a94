"""Passes with static shapes and no host synchronization, which a CUDA graph can replay.

A dynamic pass compacts: it reads from the device which rows exit, and runs the LM head on those alone. A static pass
runs a *bucket* of rows: a fixed number of rows and fixed operations, independent of the data. Gate, exits, tokens, next
embeddings, pages, slots and positions are all computed on the device. A row without work (its sample has ended, the
bucket is not full, or it does not exit and so gets no token) does the same work on the *dummy slot*, an extra slot
after the samples' whose only page may be overwritten. The head sees every row of the bucket, which costs about 8 % more
arithmetic at the published sizes and reads the same weights.

Every few passes the host removes ended samples, admits new ones and reserves the pages of the next passes. Passes with
prompts in them are dynamic. Both kinds share the code of sampler, cache and layers, so a sample does not depend on the
kind of pass that computed it.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace

import torch
from torch import Tensor

from ouro_rl.core.sampling_params import SamplingParams
from rollout_workers.engine.attention import Rows
from rollout_workers.engine.forward import Forward
from rollout_workers.engine.graphs.cuda_graph import GraphedPass, GraphMemory
from rollout_workers.engine.sampling.sampler import Sampler

LOOK_EVERY = 8
"""Maximum passes between two host synchronizations. An ended sample waits for half as many on average."""
LEAST_BUCKET = 8
KEPT = 2
"""Sets of sampling parameters whose graphs are kept: one for training and one for evaluation."""

RunPass = Callable[[], None]
Wrap = Callable[[RunPass], RunPass]
"""Turns a pass into an equivalent function, such as a CUDA graph of it."""


def obstacle(forward: Forward, params: SamplingParams) -> str | None:
    """Why a call needs the host in every pass; None when it does not."""
    if params.filters.logit_processors:
        return "logit processors run on the host"
    if params.filters.top_p < 1:
        return "top_p reads a data-dependent number of tokens"
    if params.early_stop is not None:
        return "early_stop reads completions on the host"
    if forward.attention.needs_host_sync and forward.cache.table.device.type == "cuda":
        return "attention in plain torch reads the lengths on the host"
    return None


class StaticPasses:
    """The static passes of calls with the same `params`, but for the gate's temperature. Keeps its tensors, and so its
    graphs, between calls."""

    def __init__(self, forward: Forward, params: SamplingParams, max_batch: int, wrap: Wrap):
        self.forward, self.cache, self.max_batch, self.wrap = forward, forward.cache, max_batch, wrap
        self.sampler = Sampler(forward.model, params, max_batch + 1)
        self.dummy_slot = max_batch
        self.sampler.loops[max_batch] = 1
        device = self.cache.table.device
        self.dummy = torch.tensor([max_batch], device=device)
        self.dummy_page = torch.zeros(1, dtype=torch.int64, device=device)
        self.running = torch.zeros(max_batch + 1, dtype=torch.bool, device=device)
        """By slot: whether its sample has not ended. Always false for the dummy slot."""
        self.counters = torch.zeros(3, dtype=torch.int64, device=device)
        """Free pages; rows and tokens since the last host synchronization."""
        self.passes: dict[int, tuple[Tensor, RunPass]] = {}
        """By bucket size: its slots and its pass."""
        self.addresses: tuple = ()
        self.copies: list[Tensor] = []
        """Copies of weights that graphs may read."""

    def open(self, gate_temperature: float) -> None:
        """Begin a call: update the copies of weights, and allocate a page for the dummy slot."""
        self.sampler.gate_temperature.fill_(gate_temperature)
        self.refresh()
        self.cache.open(self.dummy_slot)
        page, _ = self.cache.extend(self.dummy, torch.ones_like(self.dummy), torch.zeros_like(self.dummy))
        self.dummy_page.copy_(page)

    def refresh(self) -> None:
        """Update the copies of weights, which may have changed."""
        copies = self.forward.ops.refresh()
        if not set(map(id, self.copies)) <= set(map(id, copies)):  # one of them is stale
            self.passes.clear()

    def close(self) -> None:
        """End a call."""
        self.copies = self.forward.ops.refresh()
        self.cache.close([self.dummy_slot])

    def run(self, live: Tensor) -> tuple[int, int, int, list[int]]:
        """Run up to `LOOK_EVERY` passes over the samples in slots `live` [n], as many as free pages allow; at least n
        pages must be free. Returns the numbers of passes, rows and tokens, and the slots whose completion ended."""
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
        """The smallest bucket for `count` rows. Drops all graphs when a tensor has moved (wider table, larger pools,
        other weights)."""
        self.forward.angles()  # computed now if the table has become wider
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
        """Tensors that a pass reads or writes and that may be replaced between calls."""
        cache = self.cache
        yield from (cache.table, cache.free, cache.counts, cache.loop_numbers, *cache.keys, *cache.values)
        yield from self.forward.angles()
        yield from self.forward.model.parameters()

    def _pass(self, slots: Tensor) -> None:
        """One pass over the slots of a bucket. Control flow must not depend on tensor values: the pass is captured
        once."""
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
        """A free page for each running row, from the end of the list, and the dummy slot's page for the others:
        bool [n] -> int64 [n]."""
        rank = running.long().cumsum(0)
        places = (self.counters[:1] - rank).clamp(min=0)
        pages = torch.where(running, self.cache.free.index_select(0, places), self.dummy_page)
        self.counters[:1].sub_(rank[-1:])
        return pages


class StaticChoice:
    """Whether an engine's calls run static passes, and the passes for the most recent sets of sampling parameters. The
    gate's temperature is not one of them: it may change with every update, and graphs read it from a tensor.

    `wanted`: None enables static passes on CUDA devices, where they pay off."""

    def __init__(self, forward: Forward, max_batch: int, wanted: bool | None, wrap: Wrap | None = None):
        device = forward.cache.table.device
        self.forward, self.max_batch = forward, max_batch
        self.wanted = device.type == "cuda" if wanted is None else wanted
        if wrap is None and self.wanted and device.type == "cuda":
            memory = GraphMemory(device)
            wrap = lambda run_pass: GraphedPass(run_pass, memory)  # noqa: E731
        self.wrap: Wrap = wrap or (lambda run_pass: run_pass)
        self.known: dict[SamplingParams, StaticPasses] = {}
        """Most recently used last."""

    @property
    def spare_pages(self) -> int:
        """Pages that are not available to samples."""
        return int(self.wanted)

    @property
    def description(self) -> str | None:
        if not self.wanted:
            return None
        graphs = "as CUDA graphs" if self.forward.cache.table.device.type == "cuda" else "without CUDA graphs"
        return f"static-shape passes {graphs}, except for prompts"

    def open(self, params: SamplingParams) -> StaticPasses | None:
        """Begin a call. None: the call runs dynamic passes; a warning says why unless that was configured."""
        if not self.wanted:
            return None
        if why := obstacle(self.forward, params):
            warnings.warn(f"rollouts run dynamic passes, without CUDA graphs: {why}", stacklevel=2)
            return None
        shared = replace(params, depth_policy=replace(params.depth_policy, gate_temperature=1.0))
        static = self.known.pop(shared, None) or StaticPasses(self.forward, shared, self.max_batch, self.wrap)
        self.known[shared] = static
        if len(self.known) > KEPT:
            del self.known[next(iter(self.known))]
        static.open(params.depth_policy.gate_temperature)
        return static

    def forget(self) -> None:
        """Drop all passes, even of a call in progress."""
        self.known.clear()
