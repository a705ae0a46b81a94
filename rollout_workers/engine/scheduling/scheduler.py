"""Scheduler: waiting samples, slots, shared prefixes and free pages.

Host-side bookkeeping, whose work per sample does not grow with the queue. All prompts of a call are known from the
start; samples are queued at once or one after another. First come, first served: running samples always precede waiting
ones. When pages run short, unused shared prefixes are evicted, least
recently used first; then the *last* admitted sample is preempted: its pages are freed, and it waits at the front of the
queue with its tokens so far. So the first sample always advances, and every sample ends even under the tightest limit.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import torch

from ouro_rl.core.rollout import RolloutRequest, WeightChange
from rollout_workers.engine.kv_cache import KVCache
from rollout_workers.engine.sampling.completion import Completion
from rollout_workers.engine.scheduling.prefill import PrefillQueue, Task
from rollout_workers.engine.scheduling.prefix_tree import Prefix, prefix_tree

SPARE_TOKENS = 8
"""Tokens at full depth for which each running sample must have free pages before another sample is admitted: fewer than
it may need, so that more samples run, but enough to make preemption rare."""
SPARE_PREFIXES = 16
"""Slots for shared prefixes in addition to one per sample."""


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One completion to generate."""

    request: RolloutRequest
    index: int
    """Position in its group."""
    order: int
    """Index in the rollouts that the call returns."""
    prefix: Prefix
    completion: Completion = Completion()
    """The tokens so far: empty before the first admission."""
    weights: tuple[WeightChange, ...] = ()
    """Which weights began it, and which followed; one entry also for each time that it was computed anew."""

    @property
    def prompt_ids(self) -> tuple[int, ...]:
        return self.request.prompt.token_ids

    @property
    def seed(self) -> int:
        return self.request.seeds[self.index]

    @property
    def fixed_depth(self) -> int | None:
        return self.request.fixed_depth(self.index)


@dataclass(frozen=True, kw_only=True)
class Admission:
    """A sample that was given a slot. It runs once the prefill queue lets it join."""

    slot: int
    sample: Sample
    shared: int
    """Positions of its prompt that were already in the cache."""


class Scheduler:
    """Admits the samples that were queued. They use the cache's slots 0..max_batch-1, shared prefixes the slots after
    them.

    A shared prefix stays cached while samples beneath it wait or run, unless its pages are needed; it is recomputed
    when missing."""

    def __init__(
        self,
        requests: Sequence[RolloutRequest],
        cache: KVCache,
        prefill: PrefillQueue,
        max_batch: int,
        *,
        shares_prefixes: bool = True,
    ):
        """`shares_prefixes=False`: every sample computes its whole prompt."""
        self.cache, self.prefill, self.shares_prefixes, self.max_batch = cache, prefill, shares_prefixes, max_batch
        prefixes = prefix_tree([request.prompt.token_ids for request in requests])
        asked = [
            (request, index, prefix)
            for request, prefix in zip(requests, prefixes, strict=True)
            for index in range(len(request.seeds))
        ]
        self.samples = [
            Sample(request=request, index=index, order=order, prefix=prefix)
            for order, (request, index, prefix) in enumerate(asked)
        ]
        """All samples of the call, by order."""
        self.waiting: deque[Sample] = deque()
        self.running: dict[int, Sample] = {}
        """By slot, in the order of the call."""
        self.prefixes: dict[int, Prefix] = {}
        """By slot, least recently used first."""
        self.free_slots = list(range(max_batch - 1, -1, -1))
        self.free_prefix_slots = [
            slot for slot in range(cache.slots - 1, max_batch - 1, -1) if slot not in cache.references
        ]
        self.is_short = False
        """A sample was preempted and none has ended since: no sample is admitted while others run."""

    def queue(self, orders: Iterable[int]) -> None:
        """Let these samples wait for admission, after those that wait already."""
        for order in orders:
            self._count_waiting(self.samples[order], 1)
            self.waiting.append(self.samples[order])

    def admit(self) -> Admission | None:
        """Admit the first waiting sample if there are a free slot and enough pages."""
        if not self.waiting or not self.free_slots or (self.is_short and self.running):
            return None
        sample = self.waiting[0]
        if not self._find_pages(sample):
            return None
        self.waiting.popleft()
        shared = self._open_prefixes(sample)
        self._count_waiting(sample, -1)
        slot = self.free_slots.pop()
        start = self._open(slot, self._cached_prefix(sample))
        tokens, depths = self._known(sample)
        if start < len(tokens):
            self._fill(slot, start, tokens[start:], depths[start:])
        self.prefill.waiting.append(slot)
        self.running[slot] = sample
        return Admission(slot=slot, sample=sample, shared=shared)

    def finish(self, slots: Sequence[int]) -> list[Sample]:
        """Remove samples that have ended or were cancelled, and free their pages."""
        samples = [self.running.pop(slot) for slot in slots]
        self.is_short = False
        self._close(slots, samples)
        return samples

    def youngest(self) -> int:
        """The slot of the last admitted sample."""
        return next(reversed(self.running))

    def preempt(self, slot: int, completion: Completion) -> None:
        """Requeue a sample because memory is short."""
        self.is_short = True
        self.requeue(slot, completion)

    def requeue(self, slot: int, completion: Completion) -> None:
        """Put a sample back at the front of the queue with its tokens so far, and free its pages."""
        old = self.running.pop(slot)
        sample = replace(old, completion=completion)
        self._count_waiting(sample, 1)  # before closing: its shared prefixes may be needed again
        self.waiting.appendleft(sample)
        self._close([slot], [old])

    def note_weights(self, slot: int, version: int, tokens: int, *, recomputed: bool) -> None:
        """Weights of this version go on with a running sample that has so many tokens; `recomputed`: they compute
        everything before anew."""
        sample = self.running[slot]
        earlier = () if recomputed and tokens == 0 else sample.weights  # nothing is left of those
        change = WeightChange(start=tokens, version=version, recomputed=recomputed)
        self.running[slot] = replace(sample, weights=(*earlier, change))

    def retire_prefixes(self) -> None:
        """Share the prefixes in the cache with no further sample: they were computed by earlier weights. Their pages
        are freed with the last sample that reads them."""
        for slot, prefix in list(self.prefixes.items()):
            self._drop(prefix, slot)

    def evict(self, spared: Sequence[Prefix] = ()) -> bool:
        """Free the pages of the least recently used shared prefix that no slot reads; false when there is none."""
        for slot, prefix in self.prefixes.items():
            if self.cache.references[slot] == 1 and prefix not in spared:
                self._drop(prefix, slot)
                return True
        return False

    def _close(self, slots: Sequence[int], samples: Sequence[Sample]) -> None:
        """Close the slots of samples, and then the shared prefixes above them that are no longer needed."""
        self.prefill.drop(slots)
        self._release(slots)
        for sample in samples:
            for prefix in sample.prefix.path():
                if prefix.slot is not None and not prefix.waiting and self.cache.references[prefix.slot] == 1:
                    self._drop(prefix, prefix.slot)

    def _drop(self, prefix: Prefix, slot: int) -> None:
        self.prefill.drop([slot])
        self._release([slot])
        del self.prefixes[slot]
        prefix.slot = None

    def _release(self, slots: Sequence[int]) -> None:
        for slot in self.cache.close(slots):
            (self.free_slots if slot < self.max_batch else self.free_prefix_slots).append(slot)

    def _find_pages(self, sample: Sample) -> bool:
        """Whether there are enough pages for a sample to start, after evicting unused shared prefixes if needed."""
        cached, known = self._cached_prefix(sample), self._known(sample)[1]
        start = 0 if cached is None else cached.stop
        wanted = sum(known[start:]) + self.cache.loops
        if self.running:
            wanted += self.cache.loops * SPARE_TOKENS * (len(self.running) + 1)
        path = list(sample.prefix.path())
        while self.cache.available < wanted:
            if not self.evict(spared=path):
                return False
        return True

    def _open_prefixes(self, sample: Sample) -> int:
        """Open the shared prefixes that are missing for this sample and that others will need, from the root down.

        Returns the number of prompt positions that were in the cache already."""
        cached = self._cached_prefix(sample)
        shared = 0 if cached is None else cached.stop
        if cached is not None:
            assert cached.slot is not None, "a cached prefix has a slot"
            self.prefixes[cached.slot] = self.prefixes.pop(cached.slot)  # now the most recently used
        path = list(sample.prefix.path()) if self.shares_prefixes else []
        for prefix in reversed(path):
            if prefix.stop <= shared or prefix.waiting < 2:
                continue
            if not self.free_prefix_slots and not self.evict(spared=path):
                break
            prefix.slot = self.free_prefix_slots.pop()
            start = self._open(prefix.slot, cached)
            tokens = sample.prompt_ids[start : prefix.stop]
            self._fill(prefix.slot, start, tokens, [self.cache.loops] * len(tokens))
            self.prefixes[prefix.slot] = cached = prefix
        return shared

    def _open(self, slot: int, cached: Prefix | None) -> int:
        """Open a slot that starts with the shared prefix `cached`. Returns where its own positions start."""
        if cached is None:
            self.cache.open(slot)
            return 0
        self.cache.open(slot, prefix=cached.slot, shared=cached.stop)
        return cached.stop

    def _fill(self, slot: int, start: int, tokens: Sequence[int], depths: Sequence[int]) -> None:
        """Allocate pages for the positions from `start` on, and queue their prefill."""
        is_full = min(depths) == self.cache.loops
        table_depths = None if is_full else torch.tensor(depths, device=self.cache.table.device)
        self.cache.fill(slot, start, start + len(tokens), table_depths)
        self.prefill.waiting.append(Task(slot=slot, start=start, tokens=tokens, depths=depths))

    def _known(self, sample: Sample) -> tuple[tuple[int, ...], list[int]]:
        """Tokens before the sample's next input token, and the number of loops that each of them runs."""
        prompt, loops = sample.prompt_ids, self.cache.loops
        ran = [self.cache.rule.loops_run(depth, loops) for depth in sample.completion.depths]
        return (prompt + sample.completion.token_ids)[:-1], [loops] * (len(prompt) - 1) + ran

    def _cached_prefix(self, sample: Sample) -> Prefix | None:
        """The longest prefix of a sample's prompt that is in the cache."""
        return next((prefix for prefix in sample.prefix.path() if prefix.slot is not None), None)

    def _count_waiting(self, sample: Sample, change: int) -> None:
        for prefix in sample.prefix.path():
            prefix.waiting += change
