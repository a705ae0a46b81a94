"""Attention of a pass's rows over paged keys and values.

Row (slot, loop, position) reads the first `context` entries of that slot's block-table row at that loop: positions
0..position, or fewer where the KV rule leaves gaps.

`TorchAttention` is plain torch: the reference for the kernels, and the fallback without one. `KernelAttention` calls a
kernel, in C on the CPU and in Triton on CUDA devices. Both are batch-invariant: a row's result does not depend on the
other rows.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from ouro_rl.kernels.interface import RowKernels
from ouro_rl.kernels.ops import KernelOps, Ops
from rollout_workers.engine.kv_cache import NO_PAGE, KVCache
from rollout_workers.engine.scheduling.prefill import Piece, Prefill

CHUNK_BYTES = 64 << 20
"""Maximum bytes of keys and values that plain torch gathers at once."""

Attend = Callable[[Tensor, Tensor, Tensor, float], Tensor]
"""(q [rows, heads, dim], keys and values [pages, kv heads, dim], scaling) -> mixed [rows, heads, dim]. Unplanned rows
(padding at the end of a pass) give zeros."""


@dataclass(frozen=True, kw_only=True)
class Rows:
    """The rows of one pass: samples first, then those of each prefill. int64 [rows] each."""

    slots: Tensor
    loops: Tensor
    positions: Tensor
    contexts: Tensor
    """Entries of its block-table row that a row reads, its own included: position + 1 unless the KV rule leaves
    gaps."""
    samples: int
    """How many of the rows belong to samples."""
    prefills: Sequence[Prefill] = ()


class Attention(Protocol):
    needs_host_sync: bool
    """Whether planning reads device values on the host even without prefills: then a CUDA graph cannot capture a
    pass."""

    def plan(self, rows: Rows) -> Attend:
        """The work shared by all layers, done once per pass."""


def choose_attention(cache: KVCache, ops: Ops, heads: int) -> Attention:
    """The implementation that matches `ops`."""
    return KernelAttention(cache, ops.kernels) if isinstance(ops, KernelOps) else TorchAttention(cache, heads)


class KernelAttention:
    """Attention by a kernel, row by row, directly from the block table: without gathering or padding."""

    def __init__(self, cache: KVCache, kernels: RowKernels):
        self.cache, self.kernels = cache, kernels
        self.needs_host_sync = kernels.needs_host_sync

    def paged(self, rows: Rows) -> Any:
        """The kernels' plan of the rows (`plan_rows`)."""
        table_rows = self.cache.table_rows(rows.slots, rows.loops)
        return self.kernels.plan_rows(self.cache.table, table_rows, rows.contexts, unshared=rows.samples)

    def plan(self, rows: Rows) -> Attend:
        paged = self.paged(rows)

        def attend(q: Tensor, keys: Tensor, values: Tensor, scaling: float) -> Tensor:
            return self.kernels.attend(q, keys, values, paged, scaling)

        return attend


@dataclass(frozen=True, kw_only=True)
class Segment:
    """Rows that plain torch computes together: `n` sequences with `queries` (padded) rows each."""

    rows: Tensor
    """int64 [k]: which rows of the pass."""
    pages: Tensor
    """int64 [n, context]: the pages that each sequence reads, padded with the null page."""
    bias: Tensor | None
    """Added to the scores, 0 or -inf, [n, 1, 1 or queries, context]. None: query i reads entries 0..i (causal, a prompt
    from its start)."""
    queries: int = 1
    places: Tensor | None = None
    """int64 [k]: indices of the rows among the n * queries padded ones. None: one query per sequence, no padding."""


class TorchAttention:
    """Gathers the pages of rows with equal padded context. The padding depends only on a row's own context."""

    needs_host_sync = True

    def __init__(self, cache: KVCache, heads: int):
        self.cache = cache
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
        contexts = rows.contexts[: rows.samples]
        padded, order = padded_lengths(contexts).sort(stable=True)
        segments, start = [], 0
        for context, count in zip(*(x.tolist() for x in padded.unique_consecutive(return_counts=True)), strict=True):
            for part in order[start : start + count].split(self._at_once(context)):
                bias = context_bias(contexts[part], context, self.cache.keys[0].dtype)
                pages = self.cache.read(rows.slots[part], rows.loops[part], context).masked_fill(
                    bias[:, 0, 0] < 0, NO_PAGE
                )
                segments.append(Segment(rows=part, pages=pages, bias=bias))
            start += count
        return segments

    def _prefill_segments(self, rows: Rows) -> list[Segment]:
        """Segments of the prompts' pieces, grouped by padded number of rows and padded context."""
        alike: dict[tuple, list[tuple[int, int, Piece]]] = {}
        row = rows.samples
        for prefill in rows.prefills:
            pieces = prefill.pieces()
            padded = padded_lengths(torch.tensor([[piece.rows, piece.context] for piece in pieces])).tolist()
            for piece, (queries, context) in zip(pieces, padded, strict=True):
                alike.setdefault((queries, context, piece.is_causal), []).append((row, prefill.loop, piece))
                row += piece.rows
        return [
            self._prefill_segment(rows, members[start : start + at_once], queries, context, is_causal)
            for (queries, context, is_causal), members in alike.items()
            for at_once in [self._at_once(context)]
            for start in range(0, len(members), at_once)
        ]

    def _prefill_segment(
        self, rows: Rows, members: list[tuple[int, int, Piece]], queries: int, context: int, is_causal: bool
    ) -> Segment:
        """Pieces (first row, loop, piece) as one segment."""
        device = rows.slots.device
        index = torch.cat([torch.arange(row, row + piece.rows) for row, _, piece in members]).to(device)
        places = torch.cat([torch.arange(piece.rows) + i * queries for i, (_, _, piece) in enumerate(members)]).to(
            device
        )
        slots = torch.tensor([piece.slot for _, _, piece in members], device=device)
        pages = self.cache.read(slots, torch.tensor([loop for _, loop, _ in members], device=device), context)
        ends = torch.tensor([piece.context for _, _, piece in members], device=device)
        # Pages after the piece may be allocated but not yet written: read the null page instead.
        pages = pages.masked_fill(torch.arange(context, device=device) >= ends.unsqueeze(1), NO_PAGE)
        bias = None
        if not is_causal:
            contexts = torch.ones(len(members) * queries, dtype=torch.int64, device=device)
            contexts.index_copy_(0, places, rows.contexts.index_select(0, index))
            bias = context_bias(contexts, context, self.cache.keys[0].dtype).view(len(members), 1, queries, context)
        return Segment(rows=index, pages=pages, bias=bias, queries=queries, places=places)

    def _at_once(self, context: int) -> int:
        """Number of sequences that may be gathered at once."""
        page = self.cache.keys[0][0]
        return max(1, CHUNK_BYTES // (2 * context * page.numel() * page.element_size()))


def padded_lengths(lengths: Tensor) -> Tensor:
    """Round up to a multiple of 32; above 256, in steps of an eighth of the next power of two: int64 [n] -> [n].

    So padding stays small for long contexts, and the number of distinct lengths grows with the log of the longest."""
    steps = (2 ** lengths.clamp(min=256).double().log2().ceil().long()) // 8
    return (lengths + steps - 1) // steps * steps


def context_bias(contexts: Tensor, padded: int, dtype: torch.dtype) -> Tensor:
    """The bias of rows that read positions 0..contexts-1 of `padded`: [n] -> [n, 1, 1, padded]."""
    beyond = torch.arange(padded, device=contexts.device) >= contexts.unsqueeze(1)
    bias = torch.zeros(beyond.shape, dtype=dtype, device=contexts.device)
    return bias.masked_fill_(beyond, -torch.inf)[:, None, None]
