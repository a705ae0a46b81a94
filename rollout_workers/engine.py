"""Loop-level continuous batching: one pass is one trip through the layers for every live row, each at its own loop.

All loops share their weights, so rows at loop 1 and rows at loop 3, samples and prompts being prefilled, go through the same
matrix products. After a pass the rows whose gate says so leave, get a token and come back at loop 1; the others come back one
loop deeper. Nothing waits: a prompt at loop t and its samples' first position at loop t run in the same pass, because a layer
writes the keys of all its rows before it attends.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ouro_rl.errors import UserError
from ouro_rl.model import OuroForCausalLM
from ouro_rl.model.layers import in_tiles
from ouro_rl.types import Rollout, RolloutRequest, SamplingParams
from rollout_workers.attention import Rows, choose_attention, padded_lengths
from rollout_workers.kv_cache import KVCache
from rollout_workers.prefill import Prefill
from rollout_workers.sampler import Sampler
from rollout_workers.scheduler import Admission, Scheduler

Progress = Callable[[int, int], None]
"""Called now and then with (completion tokens so far, finished samples so far)."""
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
    peak_pages: int = 0


class RolloutEngine:
    """Samples completions from a model whose depth varies by token.

    `max_batch` is the most samples alive at once; more may wait. The cache's pools stay allocated between calls."""

    def __init__(self, model: OuroForCausalLM, *, max_batch: int):
        weights = model.model.embed_tokens.weight
        self.model, self.max_batch = model, max_batch
        self.cache = KVCache(model.config, slots=2 * max_batch, dtype=weights.dtype, device=weights.device)
        self.attention = choose_attention(self.cache, model.config.num_attention_heads)
        self.stats = EngineStats()

    @torch.inference_mode()
    def generate(
        self,
        requests: Sequence[RolloutRequest],
        params: SamplingParams,
        *,
        policy_version: int = 0,
        on_progress: Progress | None = None,
    ) -> list[Rollout]:
        """All samples of all requests, in the order of the requests and of their seeds.

        A sample depends on the weights, its prompt, its seed and `params` alone. Raises `UserError` for a prompt without tokens,
        or one that does not fit the model's positions together with `max_new_tokens`."""
        self._check(requests, params)
        longest = max((len(request.prompt.token_ids) for request in requests), default=0) + params.max_new_tokens
        self.cache.reserve(int(padded_lengths(torch.tensor(longest))))
        call = _Call(self, requests, params, policy_version, on_progress)
        try:
            return call.run()
        finally:
            self.stats.peak_pages = max(self.stats.peak_pages, self.cache.peak)
            if self.cache.references:  # left by an exception
                self.cache.reset()

    def _check(self, requests: Sequence[RolloutRequest], params: SamplingParams) -> None:
        limit = self.model.config.max_position_embeddings
        if params.max_new_tokens < 1:
            raise UserError("max_new_tokens must be at least 1")
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


class _Call:
    """One call of `RolloutEngine.generate`, from its first admission to its last sample."""

    def __init__(
        self, engine: RolloutEngine, requests, params: SamplingParams, policy_version: int, on_progress: Progress | None
    ):
        self.engine, self.params, self.policy_version, self.on_progress = engine, params, policy_version, on_progress
        self.model, self.cache, self.stats = engine.model, engine.cache, engine.stats
        self.scheduler = Scheduler(requests, engine.cache, engine.max_batch)
        self.sampler = Sampler(engine.model, params, engine.max_batch)
        self.prefills: list[Prefill] = []
        self.rollouts: list[Rollout | None] = [None] * len(self.scheduler.waiting)
        self.device = engine.cache.table.device
        self.live = torch.empty(0, dtype=torch.int64, device=self.device)
        """Slots of the running samples."""
        width = engine.cache.table.shape[2]
        self.rope = self.model.model.rotary_emb(torch.arange(width, device=self.device), self.sampler.states.dtype)
        self.tokens = self.finished = 0

    def run(self) -> list[Rollout]:
        passes = 0
        while self.scheduler.waiting or self.scheduler.running:
            if self.scheduler.waiting and self.scheduler.free_slots:
                self._admit(self.scheduler.admit())
            ended = self._step()
            if ended:
                self._finish(ended)
            passes += 1
            if self.on_progress is not None and (ended or passes % PROGRESS_PASSES == 0):
                self.on_progress(self.tokens, self.finished)
        return self.rollouts

    def _admit(self, admission: Admission) -> None:
        samples = admission.samples.values()
        self.sampler.start(
            list(admission.samples), [sample.seed for sample in samples], [sample.prompt_ids for sample in samples]
        )
        self.live = self._slots_running()
        if admission.prefills:
            self.prefills.append(Prefill(admission.prefills, self.model.model.embed_tokens))

    def _finish(self, slots: list[int]) -> None:
        records = self.sampler.collect(slots)
        samples, closed = self.scheduler.finish(slots)
        self.prefills = [prefill for prefill in self.prefills if prefill.keeps(closed)]
        for sample, record in zip(samples, records, strict=True):
            stopped = record["completion_ids"][-1] in self.params.stop_token_ids
            self.rollouts[sample.order] = Rollout(
                prompt_index=sample.request.prompt.index,
                sample_index=sample.index,
                prompt_ids=sample.prompt_ids,
                policy_version=self.policy_version,
                temperature=self.params.temperature,
                finish_reason="stop" if stopped else "length",
                **record,
            )
        self.live = self._slots_running()
        self.finished += len(slots)
        self.stats.finished += len(slots)

    def _slots_running(self) -> Tensor:
        return torch.tensor(list(self.scheduler.running), dtype=torch.int64, device=self.device)

    def _step(self) -> list[int]:
        """One pass. Returns the slots of the samples that ended."""
        states = self._run_layers(*self._gather_rows())
        start = len(self.live)
        for prefill in self.prefills:
            stop = start + len(prefill.states)
            prefill.advance(states[start:stop])
            start = stop
        self.prefills = [prefill for prefill in self.prefills if prefill.loop <= self.cache.loops]
        made, ended = self.sampler.step(self.live, states[: len(self.live)])
        self.tokens += made
        self.stats.passes += 1
        self.stats.rows += len(self.live)
        self.stats.prefill_rows += start - len(self.live)
        self.stats.tokens += made
        return ended

    def _gather_rows(self) -> tuple[Rows, Tensor, Tensor]:
        """The rows of the next pass, the pages that they write, and the states [rows, hidden] that they start from."""
        sampler, prefills = self.sampler, self.prefills
        loops, positions, states = (
            part.index_select(0, self.live) for part in (sampler.loops, sampler.positions, sampler.states)
        )
        pages = self.cache.extend(self.live, loops, positions)
        if not prefills:
            return Rows(slots=self.live, loops=loops, positions=positions, samples=len(loops)), pages, states
        rows = Rows(
            slots=torch.cat([self.live, *(prefill.row_slots for prefill in prefills)]),
            loops=torch.cat([loops, *(torch.full_like(prefill.positions, prefill.loop) for prefill in prefills)]),
            positions=torch.cat([positions, *(prefill.positions for prefill in prefills)]),
            samples=len(loops),
            prefills=prefills,
        )
        prompt = slice(rows.samples, None)
        prompt_pages = self.cache.table[rows.slots[prompt], rows.loops[prompt] - 1, rows.positions[prompt]]
        return rows, torch.cat([pages, prompt_pages]), torch.cat([states, *(prefill.states for prefill in prefills)])

    def _run_layers(self, rows: Rows, pages: Tensor, states: Tensor) -> Tensor:
        """Through all layers and the final norm: states [rows, hidden], zero rows put behind to fill a tile."""
        hidden = in_tiles(states)
        positions = F.pad(rows.positions, (0, len(hidden) - len(pages)))
        rope = tuple(part.index_select(0, positions) for part in self.rope)
        attend_rows = self.engine.attention.plan(rows)
        cache = self.cache

        def attend(module, q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, None]:
            layer = module.layer_idx
            cache.write(layer, pages, k[: len(pages)], v[: len(pages)])
            return attend_rows(q, cache.keys[layer], cache.values[layer], module.scaling), None

        for layer in self.model.model.layers:
            hidden, _ = layer(hidden, rope, attend)
        return self.model.model.norm(hidden)
