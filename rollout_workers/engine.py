"""Loop-level continuous batching: one pass is one trip through the layers for every live row, each at its own loop.

All loops share their weights, so rows at loop 1 and rows at loop 3, samples and prompts being prefilled, go through the same
matrix products. After a pass the rows whose gate says so leave, get a token and come back at loop 1; the others come back one
loop deeper. Nothing waits: a prompt at loop t and its samples' first position at loop t run in the same pass, because a layer
writes the keys of all its rows before it attends.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ouro_rl.errors import UserError
from ouro_rl.exit_gate import check_depth_policy
from ouro_rl.model import OuroForCausalLM
from ouro_rl.types import Rollout, RolloutRequest, SamplingParams
from rollout_workers.attention import Rows, padded_lengths
from rollout_workers.forward import Forward
from rollout_workers.kv_cache import KVCache, page_bytes
from rollout_workers.prefill import PrefillQueue
from rollout_workers.sampler import Sampler
from rollout_workers.scheduler import SPARE_LENDERS, Admission, Sample, Scheduler
from rollout_workers.static_passes import StaticChoice

Progress = Callable[[int, int], None]
"""Called now and then with (completion tokens so far, finished samples so far)."""
OnRollout = Callable[[int, Rollout], None]
"""Called with every finished rollout at once, and its place in what `generate` will return."""
PROGRESS_PASSES = 16
"""Passes between two calls when nothing finishes."""


@dataclass(kw_only=True)
class EngineStats:
    """Counters since the engine was made (or since they were reset by assigning a fresh one)."""

    passes: int = 0
    rows: int = 0
    """Sample rows of all passes: the loops run for completion tokens."""
    prefill_rows: int = 0
    """Prompt rows of all passes."""
    tokens: int = 0
    finished: int = 0
    cancelled: int = 0
    preemptions: int = 0
    """Samples that gave their pages back, to be computed again: often means that the memory limit is low for `max_batch`."""
    prefix_hits: int = 0
    """Prompt positions that samples found in the cache: their group's, or a beginning in common with other prompts."""
    peak_pages: int = 0
    peak_bytes: int = 0
    """Keys and values alive at once, at most."""


def all_rows(live: Tensor, loops: Tensor) -> Tensor:
    """Every live sample runs in every pass. Slots [n], loops of the next pass by slot -> slots of the pass."""
    return live


def lockstep(live: Tensor, loops: Tensor) -> Tensor:
    """Synchronous compaction, for comparison: who has a token waits until all have theirs. Takes and gives what `all_rows` does."""
    under_way = live[loops.index_select(0, live) > 1]
    return under_way if len(under_way) else live


class RolloutEngine:
    """Samples completions from a model whose depth varies by token.

    `max_batch` is the most samples alive at once; more may wait. `kv_memory_gib` is the most memory for keys and values, kept for
    any load (None: as much as is needed); `prefill_rows` the most prompt positions in a pass (None: all that wait). The cache's
    pools stay allocated between calls. `static_passes`: passes that a CUDA graph can repeat (None: on CUDA devices). `choose_rows` and
    `share_prompts` are there for comparisons: see `lockstep`, and every sample computing its whole prompt."""

    def __init__(
        self,
        model: OuroForCausalLM,
        *,
        max_batch: int,
        kv_memory_gib: float | None = None,
        prefill_rows: int | None = None,
        share_prompts: bool = True,
        choose_rows: Callable[[Tensor, Tensor], Tensor] = all_rows,
        static_passes: bool | None = None,
    ):
        weights = model.model.embed_tokens.weight
        self.model, self.max_batch, self.prefill_rows = model, max_batch, prefill_rows
        self.share_prompts, self.choose_rows, self.kv_memory_gib = share_prompts, choose_rows, kv_memory_gib
        max_pages = None
        if kv_memory_gib is not None:
            max_pages = max(2, int(kv_memory_gib * 2**30) // page_bytes(model.config, weights.dtype))
        self.cache = KVCache(
            model.config, slots=2 * max_batch + SPARE_LENDERS, dtype=weights.dtype, device=weights.device,
            max_pages=max_pages,
        )  # fmt: skip
        self.forward = Forward(model, self.cache)
        self.static = StaticChoice(self.forward, max_batch, static_passes if choose_rows is all_rows else False)
        parts = (self.forward.description, self.static.description)
        self.description = "; ".join(part for part in parts if part is not None)
        """Which code runs, and why."""
        self.stats = EngineStats()

    @torch.inference_mode()
    def generate(
        self,
        requests: Sequence[RolloutRequest],
        params: SamplingParams,
        *,
        policy_version: int = 0,
        on_progress: Progress | None = None,
        on_rollout: OnRollout | None = None,
    ) -> list[Rollout]:
        """All samples of all requests, in the order of the requests and of their seeds.

        A sample depends on the weights, its prompt, its seed and `params` alone. Raises `UserError` for a prompt without tokens,
        or one that together with `max_new_tokens` does not fit the model's positions or the memory for keys and values."""
        self._check(requests, params)
        longest = max((len(request.prompt.token_ids) for request in requests), default=0) + params.max_new_tokens
        self.cache.reshape(
            int(padded_lengths(torch.tensor(longest))),
            loops=params.depth_policy.max_loops(self.model.config.total_ut_steps),
            rule=params.depth_policy.kv_rule,
        )
        try:
            return _Call(self, requests, params, policy_version, on_progress, on_rollout).run()
        finally:
            self.stats.peak_pages = max(self.stats.peak_pages, self.cache.peak)
            self.stats.peak_bytes = self.stats.peak_pages * self.cache.page_bytes
            if self.cache.references:  # left by an exception
                self.cache.reset()
                self.static.forget()

    def _check(self, requests: Sequence[RolloutRequest], params: SamplingParams) -> None:
        limit = self.model.config.max_position_embeddings
        if params.max_new_tokens < 1:
            raise UserError("max_new_tokens must be at least 1")
        check_depth_policy(params.depth_policy, params.exit_rule, self.model.config.total_ut_steps)
        for request in requests:
            length = len(request.prompt.token_ids)
            if length == 0:
                raise UserError(
                    f"prompt {request.prompt.index} has no tokens: give it at least one (the beginning-of-text token)"
                )
            if length + params.max_new_tokens > limit:
                raise UserError(
                    f"prompt {request.prompt.index} has {length} tokens; with {params.max_new_tokens} new ones it passes the model's "
                    f"{limit} positions (max_position_embeddings): lower max_new_tokens or leave out long prompts"
                )
            self._check_memory(request, params)

    def _check_memory(self, request: RolloutRequest, params: SamplingParams) -> None:
        """A sample that fits alone ends, whatever its company: the scheduler sees to it."""
        if self.kv_memory_gib is None:
            return
        length = len(request.prompt.token_ids)
        loops = params.depth_policy.max_loops(self.model.config.total_ut_steps)
        pages = (length - 1 + params.max_new_tokens) * loops
        if pages > self.cache.pages - 1 - self.static.spare_pages:
            raise UserError(
                f"prompt {request.prompt.index} has {length} tokens; with {params.max_new_tokens} new ones at {loops} loops its keys and "
                f"values may take {pages * self.cache.page_bytes / 2**30:.3g} GiB, but rollout.kv_memory_gib is {self.kv_memory_gib:g}: "
                "raise it, or lower rollout.max_new_tokens or data.max_prompt_tokens"
            )


class _Call:
    """One call of `RolloutEngine.generate`, from its first admission to its last sample."""

    def __init__(
        self, engine: RolloutEngine, requests, params: SamplingParams, policy_version: int,
        on_progress: Progress | None = None, on_rollout: OnRollout | None = None,
    ):  # fmt: skip
        self.engine, self.params, self.policy_version, self.on_progress = engine, params, policy_version, on_progress
        self.on_rollout = on_rollout
        self.model, self.cache, self.stats = engine.model, engine.cache, engine.stats
        self.prefill = PrefillQueue(
            self.model.model.embed_tokens, engine.prefill_rows, leaves_gaps=engine.cache.rule.leaves_gaps
        )
        self.static = engine.static.open(params)
        self.scheduler = Scheduler(
            requests, engine.cache, self.prefill, engine.max_batch, share=engine.share_prompts
        )
        self.sampler = self.static.sampler if self.static else Sampler(engine.model, params, engine.max_batch)
        self.rollouts: list[Rollout | None] = [None] * len(self.scheduler.waiting)
        self.device = engine.cache.table.device
        self.live = torch.empty(0, dtype=torch.int64, device=self.device)
        """Slots of the samples that run: not those that wait for their prompt to start."""
        self.tokens = self.finished = 0

    def run(self) -> list[Rollout]:
        passes = 0
        while self.scheduler.waiting or self.scheduler.running:
            ended = self.advance()
            passes += 1
            if self.on_progress is not None and (ended or passes % PROGRESS_PASSES == 0):
                self.on_progress(self.tokens, self.finished)
        if self.static:
            self.static.close()
        return self.rollouts

    def advance(self) -> int:
        """One pass, or a few static ones. Returns the number of samples that ended."""
        self._admit()
        rows = self.engine.choose_rows(self.live, self.sampler.loops)
        while self.cache.available < len(rows):
            if not self.scheduler.evict():
                self._preempt(self.scheduler.youngest())
                rows = self.engine.choose_rows(self.live, self.sampler.loops)
        is_static = self.static and len(rows) and not self.prefill.running
        ended = self._static_steps(rows) if is_static else self._step(rows)
        if ended:
            self._finish(ended)
        return len(ended)

    def cancel(self, slots: Sequence[int]) -> None:
        """End running samples here, between two passes: their pages are free at once, and they are returned with the tokens that
        they have (maybe none) and the finish reason `cancelled`."""
        if slots:
            records = [{**self.sampler.suspend(slot), "finish_reason": "cancelled"} for slot in slots]
            self._take_out(slots, records)
            self.stats.cancelled += len(slots)

    def _admit(self) -> None:
        admissions: list[Admission] = []
        while (admission := self.scheduler.admit()) is not None:
            admissions.append(admission)
        if admissions:
            samples = [admission.sample for admission in admissions]
            self.sampler.start(
                [admission.slot for admission in admissions],
                [sample.seed for sample in samples],
                [sample.prompt_ids for sample in samples],
            )
            for admission in admissions:
                self.stats.prefix_hits += admission.shared
                if admission.sample.record.get("completion_ids"):
                    self.sampler.resume(admission.slot, admission.sample.record)
        if self.prefill.waiting:
            joining = self.prefill.start()
            self.live = torch.cat([self.live, self.live.new_tensor(joining)])

    def _preempt(self, slot: int) -> None:
        self.scheduler.preempt(slot, self.sampler.suspend(slot))
        self.live = self.live[self.live != slot]
        self.stats.preemptions += 1

    def _finish(self, slots: list[int]) -> None:
        self._take_out(slots, self.sampler.collect(slots))
        self.stats.finished += len(slots)

    def _take_out(self, slots: Sequence[int], records: Sequence[dict[str, Any]]) -> None:
        samples = self.scheduler.finish(slots)
        for sample, record in zip(samples, records, strict=True):
            self.rollouts[sample.order] = rollout = self._rollout(sample, record)
            if self.on_rollout is not None:
                self.on_rollout(sample.order, rollout)
        self.live = self.live[~torch.isin(self.live, self.live.new_tensor(slots))]
        self.finished += len(slots)

    def _rollout(self, sample: Sample, record: dict[str, Any]) -> Rollout:
        return Rollout(
            prompt_index=sample.request.prompt.index,
            sample_index=sample.index,
            prompt_ids=sample.prompt_ids,
            policy_version=self.policy_version,
            temperature=self.params.temperature,
            filters=self.params.filters,
            depth_policy=self.params.depth_policy,
            **record,
        )

    def _step(self, slots: Tensor) -> list[int]:
        """One pass over the samples in `slots` [n] and the prompts on their way. Returns the slots of the samples that ended."""
        states = self.engine.forward(*self._gather_rows(slots))
        prefill_rows = sum(len(prefill) for prefill in self.prefill.running)
        if prefill_rows:
            self.prefill.advance(states[len(slots) : len(slots) + prefill_rows])
        made, ended = self.sampler.step(slots, states[: len(slots)]) if len(slots) else (0, [])
        self.tokens += made
        self.stats.passes += 1
        self.stats.rows += len(slots)
        self.stats.prefill_rows += prefill_rows
        self.stats.tokens += made
        return ended

    def _static_steps(self, slots: Tensor) -> list[int]:
        passes, rows, tokens, ended = self.static.run(slots)
        self.tokens += tokens
        self.stats.passes += passes
        self.stats.rows += rows
        self.stats.tokens += tokens
        return ended

    def _gather_rows(self, slots: Tensor) -> tuple[Rows, Tensor, Tensor]:
        """The rows of the next pass, the pages that they write, and the states [rows, hidden] that they start from."""
        sampler, prefills = self.sampler, self.prefill.running
        loops, positions, states = (
            part.index_select(0, slots) for part in (sampler.loops, sampler.positions, sampler.states)
        )
        pages, contexts = self.cache.extend(slots, loops, positions)
        if not prefills:
            rows = Rows(slots=slots, loops=loops, positions=positions, contexts=contexts, samples=len(slots))
            return rows, pages, states
        rows = Rows(
            slots=torch.cat([slots, *(prefill.row_slots for prefill in prefills)]),
            loops=torch.cat([loops, *(torch.full_like(prefill.positions, prefill.loop) for prefill in prefills)]),
            positions=torch.cat([positions, *(prefill.positions for prefill in prefills)]),
            contexts=torch.cat([contexts, *(prefill.contexts for prefill in prefills)]),
            samples=len(slots),
            prefills=prefills,
        )
        prompt = slice(rows.samples, None)
        prompt_pages = self.cache.table[rows.slots[prompt], rows.loops[prompt] - 1, rows.contexts[prompt] - 1]
        return rows, torch.cat([pages, prompt_pages]), torch.cat([states, *(prefill.states for prefill in prefills)])
