"""One generation: which rows run in each pass, which samples are admitted, and which have ended."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Self, TypeVar

import torch
from torch import Tensor

from ouro_rl.core.engine_config import EngineConfig
from ouro_rl.core.rollout import CacheOnChange, Rollout, RolloutRequest
from ouro_rl.core.sampling_params import SamplingParams
from ouro_rl.model.modeling_ouro import OuroForCausalLM
from rollout_workers.engine.attention import Rows
from rollout_workers.engine.forward import Forward
from rollout_workers.engine.graphs.static_passes import StaticChoice
from rollout_workers.engine.kv_cache import KVCache
from rollout_workers.engine.sampling.completion import Completion
from rollout_workers.engine.sampling.sampler import Sampler
from rollout_workers.engine.scheduling.policy import SchedulingPolicy
from rollout_workers.engine.scheduling.prefill import PrefillQueue
from rollout_workers.engine.scheduling.scheduler import Admission, Sample, Scheduler
from rollout_workers.engine.stats import EngineStats, OnRollout, Progress

Loaded = TypeVar("Loaded")

PROGRESS_PASSES = 16
"""Passes between two progress calls when no sample finishes."""


@dataclass(frozen=True, kw_only=True)
class EngineParts:
    """The parts of an engine that a generation uses, and the engine's settings. They outlive the generation."""

    model: OuroForCausalLM
    cache: KVCache
    forward: Forward
    static: StaticChoice
    stats: EngineStats
    config: EngineConfig
    policy: SchedulingPolicy
    clear: Callable[[], None]
    """Called at the end: removes what an unfinished generation left in the cache."""


class Generation:
    """The samples of one call of `RolloutEngine.generate`, from the first admission to the last token. Those that are
    queued run; the others wait for it.

    Created by `RolloutEngine.start`."""

    def __init__(
        self,
        parts: EngineParts,
        requests: Sequence[RolloutRequest],
        params: SamplingParams,
        policy_version: int,
        on_rollout: OnRollout | None = None,
    ):
        self.params, self.policy_version, self.on_rollout = params, policy_version, on_rollout
        self.cache, self.forward, self.stats = parts.cache, parts.forward, parts.stats
        self.choose_rows, self.clear = parts.policy.choose_rows, parts.clear
        max_batch = parts.config.max_batch
        self.prefill = PrefillQueue(
            parts.model.model.embed_tokens, parts.config.prefill_rows, leaves_gaps=parts.cache.rule.leaves_gaps
        )
        self.static = parts.static.open(params)
        self.scheduler = Scheduler(
            requests, parts.cache, self.prefill, max_batch, shares_prefixes=parts.policy.shares_prefixes
        )
        self.sampler = self.static.sampler if self.static else Sampler(parts.model, params, max_batch)
        self.rollouts: list[Rollout | None] = [None] * len(self.scheduler.samples)
        self.device = parts.cache.table.device
        self.live = torch.empty(0, dtype=torch.int64, device=self.device)
        """Slots of the running samples, without those that wait for their prompt's prefill to start."""
        self.tokens = self.finished = 0

    def __enter__(self) -> Self:
        return self

    @torch.inference_mode()
    def __exit__(self, *_: object) -> None:
        self.stats.peak_pages = max(self.stats.peak_pages, self.cache.peak)
        self.stats.peak_bytes = self.stats.peak_pages * self.cache.page_bytes
        if self.done and self.static:
            self.static.close()
        self.clear()

    def queue(self, places: Iterable[int]) -> None:
        """Let these samples (their indices in the result) be sampled, after those that wait already; between two
        passes."""
        self.scheduler.queue(places)

    @property
    def done(self) -> bool:
        """Whether all samples that were queued have ended."""
        return not (self.scheduler.waiting or self.scheduler.running)

    def run(self, on_progress: Progress | None = None) -> list[Rollout]:
        """Advance until all samples have ended, and return their rollouts."""
        passes = 0
        while not self.done:
            ended = self.advance()
            passes += 1
            if on_progress is not None and (ended or passes % PROGRESS_PASSES == 0):
                on_progress(self.tokens, self.finished)
        return self.result()

    def result(self) -> list[Rollout]:
        """The rollouts in the order of the requests' samples, once all have ended."""
        found = [rollout for rollout in self.rollouts if rollout is not None]
        assert len(found) == len(self.rollouts), "samples are still running"
        return found

    @torch.inference_mode()
    def advance(self) -> int:
        """One pass, or a few static ones. Returns the number of samples that ended."""
        self._admit()
        rows = self._with_pages(lambda: self.choose_rows(self.live, self.sampler.loops))
        is_static = self.static and len(rows) and not self.prefill.running
        ended = self._static_steps(rows) if is_static else self._step(rows)
        if ended:
            self._finish(ended)
        return len(ended)

    def change_weights(self, load: Callable[[], Loaded], version: int, cache: CacheOnChange) -> Loaded:
        """Between two passes: `load` gives the model the weights of `version`, which go on with the samples.

        Tokens under way are finished by the weights that began them: to begin them anew would favor depths that are
        reached before a change. Then running samples keep their keys and values, or compute them anew at their
        recorded depths. Prompts that are not yet complete in the cache, or that others will share, begin anew either
        way. Returns what `load` returns."""
        kept = self._interrupt(cache)
        loaded = load()
        self.policy_version = version
        if self.static:
            self.static.refresh()
        self._go_on(kept)
        return loaded

    @torch.inference_mode()
    def _interrupt(self, cache: CacheOnChange) -> list[int]:
        """Finish the tokens under way, and requeue the samples whose keys and values are not kept. Returns the slots of
        the others."""

        def under_way() -> Tensor:
            return self.live[self.sampler.loops.index_select(0, self.live) > 1]

        while len(rows := self._with_pages(under_way)) or self.prefill.running:
            if ended := self._step(rows):
                self._finish(ended)
        kept = self.live.tolist() if cache == "keep" else []
        for slot in [slot for slot in reversed(self.scheduler.running) if slot not in kept]:
            self._requeue(slot, self.scheduler.requeue)
        self.scheduler.retire_prefixes()
        assert not self.prefill.waiting, "it belonged to what was requeued or retired"
        return kept

    @torch.inference_mode()
    def _go_on(self, slots: Sequence[int]) -> None:
        """Let running samples go on with the weights that there are now."""
        prompts = [self.scheduler.running[slot].prompt_ids for slot in slots]
        for slot, tokens in zip(slots, self.sampler.embed_again(slots, prompts), strict=True):
            self.scheduler.note_weights(slot, self.policy_version, tokens, recomputed=False)

    def _with_pages(self, choose: Callable[[], Tensor]) -> Tensor:
        """The rows [n] that `choose` chooses, once there is a free page for each of them: samples may be preempted."""
        rows = choose()
        while self.cache.available < len(rows):
            if not self.scheduler.evict():
                self._requeue(self.scheduler.youngest(), self.scheduler.preempt)
                self.stats.preemptions += 1
                rows = choose()
        return rows

    @torch.inference_mode()
    def cancel(self, slots: Sequence[int]) -> None:
        """End running samples, between two passes. Their pages are freed immediately; their rollouts keep the tokens so
        far (possibly none), with the finish reason `cancelled`."""
        if slots:
            self._take_out(slots, [replace(self.sampler.suspend(slot), finish_reason="cancelled") for slot in slots])
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
                [sample.fixed_depth for sample in samples],
            )
            for admission in admissions:
                self.stats.prefix_hits += admission.shared
                completion = admission.sample.completion
                if completion.token_ids:
                    self.sampler.resume(admission.slot, completion)
                tokens = len(completion.token_ids)
                self.scheduler.note_weights(admission.slot, self.policy_version, tokens, recomputed=True)
        if self.prefill.waiting:
            joining = self.prefill.start()
            self.live = torch.cat([self.live, self.live.new_tensor(joining)])

    def _requeue(self, slot: int, give_back: Callable[[int, Completion], None]) -> None:
        give_back(slot, self.sampler.suspend(slot))
        self.live = self.live[self.live != slot]

    def _finish(self, slots: list[int]) -> None:
        self._take_out(slots, self.sampler.collect(slots))
        self.stats.finished += len(slots)

    def _take_out(self, slots: Sequence[int], completions: Sequence[Completion]) -> None:
        samples = self.scheduler.finish(slots)
        for sample, completion in zip(samples, completions, strict=True):
            self.rollouts[sample.order] = rollout = self._rollout(sample, completion)
            if self.on_rollout is not None:
                self.on_rollout(sample.order, rollout)
        self.live = self.live[~torch.isin(self.live, self.live.new_tensor(slots))]
        self.finished += len(slots)

    def _rollout(self, sample: Sample, completion: Completion) -> Rollout:
        assert completion.finish_reason is not None, "it has ended"
        first, *changes = sample.weights
        if all(change.version == first.version for change in changes):
            changes = []  # it was preempted, and the same weights computed it anew
        return Rollout(
            prompt_index=sample.request.prompt.index,
            sample_index=sample.index,
            prompt_ids=sample.prompt_ids,
            policy_version=first.version,
            weight_changes=tuple(changes),
            temperature=self.params.temperature,
            filters=self.params.filters,
            depth_policy=self.params.depth_policy,
            fixed_depth=sample.fixed_depth,
            completion_ids=completion.token_ids,
            token_logprobs=completion.token_logprobs,
            depths=completion.depths,
            depth_logprobs=completion.depth_logprobs,
            exit_shares=completion.exit_shares,
            support_sizes=completion.support_sizes,
            forced=completion.forced,
            stop_string=completion.stop_string,
            finish_reason=completion.finish_reason,
        )

    def _step(self, slots: Tensor) -> list[int]:
        """One pass over the samples in `slots` [n] and the prompts in prefill. Returns the slots of samples that
        ended."""
        states = self.forward(*self._gather_rows(slots))
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
        assert self.static is not None
        passes, rows, tokens, ended = self.static.run(slots)
        self.tokens += tokens
        self.stats.passes += passes
        self.stats.rows += rows
        self.stats.tokens += tokens
        return ended

    def _gather_rows(self, slots: Tensor) -> tuple[Rows, Tensor, Tensor]:
        """The rows of the next pass, the pages [rows] that they write, and their input states [rows, hidden]."""
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
