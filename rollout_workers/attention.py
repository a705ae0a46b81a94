"""Attention over paged keys and values, in plain torch: the oracle, and the fallback, of any faster kernel.

The rows of a pass come in segments of equal padded context. The padding of a row is a function of its own context alone, so its
result does not depend on the length of its company.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

CHUNK_BYTES = 64 << 20
"""Most that one segment may gather of keys and values."""


@dataclass(frozen=True, kw_only=True)
class Segment:
    """Consecutive rows of a pass that are attended together: `n` sequences with `queries` (padded) rows each."""

    start: int
    stop: int
    """The rows [start, stop) of the pass."""
    pages: Tensor
    """int64 [n, context]: what each sequence reads, padded with the null page."""
    bias: Tensor | None
    """Added to the scores, 0 or -inf, [n, 1, 1, context]. None: query i reads positions 0..i (a prompt from its start)."""
    queries: int = 1
    places: Tensor | None = None
    """int64 [stop - start]: where the rows lie among the n * queries padded ones. None: one query a sequence, no padding."""


def paged_attention(q: Tensor, keys: Tensor, values: Tensor, segments: Sequence[Segment], scaling: float) -> Tensor:
    """Every row of q [rows, heads, dim] over its pages of keys and values [pages, kv heads, dim] -> [rows, heads, dim].

    Rows of no segment (padding at the end of a pass) give zeros."""
    mixed = torch.zeros_like(q)
    for segment in segments:
        mixed[segment.start : segment.stop] = _attend(q[segment.start : segment.stop], keys, values, segment, scaling)
    return mixed


def _attend(q: Tensor, keys: Tensor, values: Tensor, segment: Segment, scaling: float) -> Tensor:
    sequences, context = segment.pages.shape
    padded = q
    if segment.places is not None:
        padded = q.new_zeros(sequences * segment.queries, *q.shape[1:]).index_copy_(0, segment.places, q)
    mixed = F.scaled_dot_product_attention(
        padded.view(sequences, segment.queries, *q.shape[1:]).transpose(1, 2),
        *(
            pool.index_select(0, segment.pages.flatten()).view(sequences, context, *pool.shape[1:]).transpose(1, 2)
            for pool in (keys, values)
        ),
        attn_mask=segment.bias,
        is_causal=segment.bias is None,
        scale=scaling,
        enable_gqa=q.shape[1] != keys.shape[1],
    )
    mixed = mixed.transpose(1, 2).flatten(0, 1)
    return mixed if segment.places is None else mixed[segment.places]


def padded_contexts(longest: int) -> Tensor:
    """Padded length for every context 0..longest, int64 [longest + 1]: up to a multiple of 32, in steps of an eighth beyond 256.

    Padding costs at most an eighth there, and the number of segments grows with the logarithm of the context."""
    contexts = torch.arange(longest + 1)
    steps = (2 ** contexts.clamp(min=256).double().log2().ceil().long()) // 8
    return (contexts + steps - 1) // steps * steps


def context_bias(contexts: Tensor, padded: int, dtype: torch.dtype) -> Tensor:
    """The bias of decode rows that read positions 0..contexts-1 of `padded`: [n] -> [n, 1, 1, padded]."""
    beyond = torch.arange(padded, device=contexts.device) >= contexts.unsqueeze(1)
    return torch.zeros(beyond.shape, dtype=dtype, device=contexts.device).masked_fill_(beyond, -torch.inf)[
        :, None, None
    ]
