"""Attention of a pass's rows over paged keys and values: row (slot, loop, position) reads positions 0..position of that slot at that loop.

`TorchAttention` is plain torch: the oracle of any faster kernel, and what runs where there is none. `NativeAttention` is a C kernel
for fp32 on the CPU. Both give each row a result that does not depend on its company.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from ouro_rl import native_attention
from rollout_workers.kv_cache import KVCache
from rollout_workers.prefill import Prefill

CHUNK_BYTES = 64 << 20
"""Most that plain torch gathers of keys and values at once."""

Attend = Callable[[Tensor, Tensor, Tensor, float], Tensor]
"""(q [rows, heads, dim], keys and values [pages, kv heads, dim], scaling) -> mixed [rows, heads, dim]; rows that were not planned
(padding at the end of a pass) give zeros."""


@dataclass(frozen=True, kw_only=True)
class Rows:
    """The rows of one pass: samples first, then those of each prefill. int64 [rows] each."""

    slots: Tensor
    loops: Tensor
    positions: Tensor
    samples: int
    """How many are samples'."""
    prefills: Sequence[Prefill] = ()


class Attention(Protocol):
    description: str
    """One line: which way was taken, and why."""

    def plan(self, rows: Rows) -> Attend:
        """What is the same in all layers, done once a pass."""


def choose_attention(cache: KVCache, heads: int) -> Attention:
    """The fastest that this machine, device, type and head size allow."""
    kernel, description = native_attention.choose(cache.keys[0])
    if kernel is None:
        return TorchAttention(cache, heads, description)
    return NativeAttention(cache, kernel, description)


class NativeAttention:
    """Row-wise, straight from the page table: nothing is gathered or padded."""

    def __init__(self, cache: KVCache, kernel: native_attention.Kernel, description: str):
        self.cache, self.kernel, self.description = cache, kernel, description

    def plan(self, rows: Rows) -> Attend:
        lines, contexts = self.cache.lines(rows.slots, rows.loops), rows.positions + 1
        table = self.cache.table

        def attend(q: Tensor, keys: Tensor, values: Tensor, scaling: float) -> Tensor:
            return native_attention.attend_rows(self.kernel, q, keys, values, table, lines, contexts, scaling)

        return attend


@dataclass(frozen=True, kw_only=True)
class Segment:
    """Rows that plain torch attends together: `n` sequences with `queries` (padded) rows each."""

    rows: Tensor
    """int64 [k]: which rows of the pass."""
    pages: Tensor
    """int64 [n, context]: what each sequence reads, padded with the null page."""
    bias: Tensor | None
    """Added to the scores, 0 or -inf, [n, 1, 1, context]. None: query i reads positions 0..i (a prompt from its start)."""
    queries: int = 1
    places: Tensor | None = None
    """int64 [k]: where the rows lie among the n * queries padded ones. None: one query a sequence, no padding."""


class TorchAttention:
    """Gathers the pages of rows of equal padded context. That padding is a function of a row's own context alone."""

    def __init__(self, cache: KVCache, heads: int, description: str = "plain torch attention"):
        self.cache, self.description = cache, description
        self.grouped = heads != cache.keys[0].shape[1]

    def plan(self, rows: Rows) -> Attend:
        segments = [*self._sample_segments(rows), *self._prefill_segments(rows)]

        def attend(q: Tensor, keys: Tensor, values: Tensor, scaling: float) -> Tensor:
            mixed = torch.zeros_like(q)
            for segment in segments:
                part = self._attend(q.index_select(0, segment.rows), keys, values, segment, scaling)
                mixed.index_copy_(0, segment.rows, part)
            return mixed

        return attend

    def _attend(self, q: Tensor, keys: Tensor, values: Tensor, segment: Segment, scaling: float) -> Tensor:
        sequences, context = segment.pages.shape
        pages, padded = segment.pages.flatten(), q
        if segment.places is not None:
            padded = q.new_zeros(sequences * segment.queries, *q.shape[1:]).index_copy_(0, segment.places, q)
        k, v = (pool.index_select(0, pages).view(sequences, context, *pool.shape[1:]) for pool in (keys, values))
        mixed = F.scaled_dot_product_attention(
            padded.view(sequences, segment.queries, *q.shape[1:]).transpose(1, 2),
            k.transpose(1, 2),
            v.transpose(1, 2),
            attn_mask=segment.bias,
            is_causal=segment.bias is None,
            scale=scaling,
            enable_gqa=self.grouped,
        )
        mixed = mixed.transpose(1, 2).flatten(0, 1)
        return mixed if segment.places is None else mixed[segment.places]

    def _sample_segments(self, rows: Rows) -> list[Segment]:
        contexts = rows.positions[: rows.samples] + 1
        padded, order = padded_lengths(contexts).sort(stable=True)
        segments, start = [], 0
        for context, count in zip(*(x.tolist() for x in padded.unique_consecutive(return_counts=True)), strict=True):
            for part in order[start : start + count].split(self._at_once(context)):
                pages = self.cache.read(rows.slots[part], rows.loops[part], context)
                bias = context_bias(contexts[part], context, self.cache.keys[0].dtype)
                segments.append(Segment(rows=part, pages=pages, bias=bias))
            start += count
        return segments

    def _prefill_segments(self, rows: Rows) -> list[Segment]:
        segments, row = [], rows.samples
        for prefill in rows.prefills:
            lengths = torch.tensor(list(prefill.lengths.values()))
            padded, slot = padded_lengths(lengths), 0
            for length, count in zip(*(x.tolist() for x in padded.unique_consecutive(return_counts=True)), strict=True):
                for part in lengths[slot : slot + count].split(self._at_once(length)):
                    slots = prefill.slots[slot : slot + len(part)]
                    places = torch.cat([torch.arange(n) + i * length for i, n in enumerate(part.tolist())])
                    segments.append(
                        Segment(
                            rows=torch.arange(row, row + len(places), device=slots.device),
                            pages=self.cache.read(slots, torch.full_like(slots, prefill.loop), length),
                            bias=None,
                            queries=length,
                            places=places.to(slots.device),
                        )
                    )
                    row, slot = row + len(places), slot + len(part)
        return segments

    def _at_once(self, context: int) -> int:
        """Sequences that may be gathered at once."""
        page = self.cache.keys[0][0]
        return max(1, CHUNK_BYTES // (2 * context * page.numel() * page.element_size()))


def padded_lengths(lengths: Tensor) -> Tensor:
    """Up to a multiple of 32, in steps of an eighth beyond 256: int64 [n] -> [n].

    Padding costs at most an eighth there, and the number of different lengths grows with the logarithm of the longest."""
    steps = (2 ** lengths.clamp(min=256).double().log2().ceil().long()) // 8
    return (lengths + steps - 1) // steps * steps


def context_bias(contexts: Tensor, padded: int, dtype: torch.dtype) -> Tensor:
    """The bias of rows that read positions 0..contexts-1 of `padded`: [n] -> [n, 1, 1, padded]."""
    beyond = torch.arange(padded, device=contexts.device) >= contexts.unsqueeze(1)
    bias = torch.zeros(beyond.shape, dtype=dtype, device=contexts.device)
    return bias.masked_fill_(beyond, -torch.inf)[:, None, None]
