"""Who runs: waiting samples, slots, and the prompts that groups share. Host-side bookkeeping, constant work for each sample."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

from ouro_rl.types import RolloutRequest
from rollout_workers.kv_cache import KVCache


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One completion to make."""

    request: RolloutRequest
    index: int
    """Position in its group."""
    order: int
    """Position among the rollouts that the call returns."""

    @property
    def prompt_ids(self) -> tuple[int, ...]:
        return self.request.prompt.token_ids

    @property
    def seed(self) -> int:
        return self.request.seeds[self.index]


@dataclass(frozen=True, kw_only=True)
class Admission:
    """What a pass begins with."""

    samples: dict[int, Sample]
    """New samples by slot."""
    prefills: dict[int, tuple[int, ...]]
    """New lenders by slot, with the tokens to prefill: all of the prompt but its last."""


class Scheduler:
    """First come, first served. Samples use the cache's slots 0..max_batch-1, lenders (prompts) the ones after.

    A lender is opened with its group's first sample and closed once the last one is admitted; the cache keeps it until the
    last borrower ends. So at most max_batch lenders live: each has a borrower."""

    def __init__(self, requests: Sequence[RolloutRequest], cache: KVCache, max_batch: int):
        self.cache, self.max_batch = cache, max_batch
        self.waiting = deque(
            Sample(request=request, index=index, order=order)
            for order, (request, index) in enumerate(
                (request, index) for request in requests for index in range(len(request.seeds))
            )
        )
        self.running: dict[int, Sample] = {}
        self.free_slots = list(range(max_batch - 1, -1, -1))
        self.free_lenders = list(range(2 * max_batch - 1, max_batch - 1, -1))
        self.lender: int | None = None
        """Of the group that is being admitted."""

    def admit(self) -> Admission:
        """Give free slots to waiting samples."""
        admission = Admission(samples={}, prefills={})
        while self.waiting and self.free_slots:
            sample = self.waiting.popleft()
            slot, shared = self.free_slots.pop(), sample.prompt_ids[:-1]
            if sample.index == 0 and shared:
                self.lender = self.free_lenders.pop()
                self.cache.open(self.lender)
                self.cache.fill(self.lender, len(shared))
                admission.prefills[self.lender] = shared
            self.cache.open(slot, lender=self.lender, shared=len(shared))
            self.running[slot] = admission.samples[slot] = sample
            if self.lender is not None and sample.index == len(sample.request.seeds) - 1:
                self.cache.close([self.lender])
                self.lender = None
        return admission

    def finish(self, slots: Sequence[int]) -> tuple[list[Sample], list[int]]:
        """Take ended samples out; their slots and pages are free at once. Returns them, and the lenders that went with them."""
        samples = [self.running.pop(slot) for slot in slots]
        closed = self.cache.close(slots)
        lenders = [slot for slot in closed if slot >= self.max_batch]
        self.free_slots += [slot for slot in closed if slot < self.max_batch]
        self.free_lenders += lenders
        return samples, lenders
