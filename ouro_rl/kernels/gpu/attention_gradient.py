"""The gradients of `attention.py`, in plain torch and fp32, per block-table row; attention weights are recomputed.

Block-table rows of similar length are batched, as many as a memory bound allows. Contributions to a shared page are
summed by sorting (`index_put_` with `accumulate`), not with atomic additions, so gradients are the same in every run.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

CHUNK_NUMBERS = 1 << 24
"""Most attention weights (row, head, entry) alive at once: 64 MiB per tensor, of which there are about four."""
LEAST_ROWS = 64
"""A block-table row counts as at least so many rows: the keys and values that are gathered for it are as wide as a
head. Probe rows have one of their own each."""


@dataclass(frozen=True, kw_only=True)
class Part:
    """A batch of B block-table rows, padded to R rows of the batch and C entries each."""

    rows: Tensor
    """int64 [B, R]: the rows that read each block-table row; 0 at padding."""
    pages: Tensor
    """int64 [B, C]: the pages of each block-table row."""
    contexts: Tensor
    """int64 [B, R]: how many entries each row reads; 0 at padding."""
    read: Tensor
    """int64 [m]: which of the B * C entries are read by some row."""
    present: Tensor
    """int64 [n]: which of the B * R rows are not padding."""


def lay_out_parts(table: Tensor, table_rows: Tensor, contexts: Tensor) -> list[Part]:
    """Group rows, which can be in any order, by block-table row, and these by length. Reads the lengths on the host."""
    if len(table_rows) == 0:
        return []
    names, name, counts = table_rows.unique(return_inverse=True, return_counts=True)
    order = name.argsort(stable=True)
    ends = counts.cumsum(0)
    longest = torch.zeros_like(names).scatter_reduce_(0, name, contexts, "amax")
    by_length = longest.argsort(stable=True)
    sizes = torch.stack([counts, longest])[:, by_length].tolist()
    parts, start = [], 0
    for stop in _cut(*sizes):
        members, rows, entries = by_length[start:stop], max(sizes[0][start:stop]), max(sizes[1][start:stop])
        within = torch.arange(rows, device=table_rows.device)
        present = within < counts[members].unsqueeze(1)
        places = (ends - counts)[members].unsqueeze(1) + within
        chosen = torch.where(present, order[places.clamp(max=len(table_rows) - 1)], 0)
        read = torch.arange(entries, device=table_rows.device) < longest[members].unsqueeze(1)
        parts.append(
            Part(
                rows=chosen,
                pages=table.view(-1, table.shape[-1])[names[members], :entries],
                contexts=torch.where(present, contexts[chosen], 0),
                read=read.flatten().nonzero().squeeze(1),
                present=present.flatten().nonzero().squeeze(1),
            )
        )
        start = stop
    return parts


def _cut(counts: Sequence[int], longest: Sequence[int]) -> list[int]:
    """Where parts end, given each block-table row's number of readers and its longest context, ascending.

    A part has at most `CHUNK_NUMBERS` (row, entry) pairs per head, unless it is a single block-table row, and
    padding at most doubles the entries of its block-table rows."""
    stops, start, rows = [], 0, LEAST_ROWS
    for i, (count, entries) in enumerate(zip(counts, longest, strict=True)):
        rows = max(rows, count)
        if i > start and ((i + 1 - start) * rows * entries > CHUNK_NUMBERS or entries > 2 * longest[start]):
            stops.append(i)
            start, rows = i, max(LEAST_ROWS, count)
    return [*stops, len(counts)]


def attend_gradient(
    grad: Tensor, q: Tensor, keys: Tensor, values: Tensor, parts: Sequence[Part], scaling: float
) -> tuple[Tensor, Tensor, Tensor]:
    """See `RowKernels`."""
    grad_q = torch.zeros(q.shape, dtype=torch.float32, device=q.device)
    grad_keys, grad_values = (torch.zeros(keys.shape, dtype=torch.float32, device=q.device) for _ in range(2))
    kv_heads, sharing = keys.shape[1], q.shape[1] // keys.shape[1]
    for part in parts:
        members, entries = part.pages.shape
        height = max(LEAST_ROWS, part.rows.shape[1] * sharing)
        at_once = max(1, CHUNK_NUMBERS // max(1, members * height * entries))
        for head in range(0, kv_heads, at_once):
            heads = slice(head, head + at_once)

            def of_rows(x: Tensor, part: Part = part, heads: slice = heads) -> Tensor:
                """[n, heads, dim] -> [B, kv heads, R * sharing, dim]."""
                x = x.unflatten(1, (kv_heads, -1))[:, heads][part.rows].float()
                return x.transpose(1, 2).flatten(2, 3)

            def of_entries(x: Tensor, part: Part = part, heads: slice = heads) -> Tensor:
                """[pages, kv heads, dim] -> [B, kv heads, C, dim]."""
                return x[:, heads][part.pages].float().transpose(1, 2)

            asked, slope, key, value = of_rows(q), of_rows(grad), of_entries(keys), of_entries(values)
            unread = torch.arange(entries, device=q.device) >= part.contexts.unsqueeze(2)
            unread = unread.repeat_interleave(sharing, 1).unsqueeze(1)
            scores = (asked @ key.mT).mul_(scaling).masked_fill_(unread, -torch.inf)
            weights = scores.softmax(-1).masked_fill(unread, 0.0)  # padding would be NaN
            through = slope @ value.mT
            through = weights * (through - (through * weights).sum(-1, keepdim=True)) * scaling

            into_q = (through @ key).unflatten(2, (part.rows.shape[1], -1)).transpose(1, 2).flatten(0, 1)
            rows = part.rows.flatten()[part.present]
            grad_q.unflatten(1, (kv_heads, -1))[:, heads].index_copy_(0, rows, into_q[part.present])
            pages = part.pages.flatten()[part.read]
            for into, found in ((grad_keys, through.mT @ asked), (grad_values, weights.mT @ slope)):
                into[:, heads].index_put_((pages,), found.transpose(1, 2).flatten(0, 1)[part.read], accumulate=True)
    return grad_q.to(q.dtype), grad_keys.to(keys.dtype), grad_values.to(values.dtype)
