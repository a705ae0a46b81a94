"""Row-wise paged attention as a Triton kernel, for CUDA devices. Importing this file needs `triton`: see `choose_attention`.

One program for each (row, head): it walks the row's line of the page table in blocks of entries from the first to the last, and
keeps a running maximum, normaliser and sum of values in fp32 (online softmax, arXiv 2205.14135). Blocks lie at fixed places, and no
program knows of another, so a row's result does not depend on its company. Contexts and lines are data: launches are alike
from pass to pass, and nothing comes back to the host, as a CUDA graph asks for.

Heads that share keys read them once each; the second time they come from the L2 cache. (In the published checkpoints no heads
share.) Likewise rows that share a prompt.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

BLOCK = 64
"""Entries of a line that are read together. Part of the result: another order of sums rounds differently."""


@triton.jit
def _attend_row(
    mixed, q, keys, values, table, lines, contexts, width, scaling,
    HEADS: tl.constexpr, SHARING: tl.constexpr, DIM: tl.constexpr, DIM_FILLED: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """`mixed` and `q` [rows, heads, dim], `keys` and `values` [pages, heads / SHARING, dim], `table` [lines, width], all dense.

    DIM_FILLED is `dim` up to the next power of two, which Triton's ranges must be."""
    row, head = tl.program_id(0).to(tl.int64), tl.program_id(1)
    context = tl.load(contexts + row)
    entries = table + tl.load(lines + row) * width
    column = tl.arange(0, DIM_FILLED)
    within = column < DIM
    here = (row * HEADS + head) * DIM + column
    query = tl.load(q + here, mask=within, other=0.0).to(tl.float32) * scaling
    page_size: tl.constexpr = HEADS // SHARING * DIM
    offset = head // SHARING * DIM + column

    highest = tl.full((), float("-inf"), tl.float32)
    normaliser = tl.full((), 0.0, tl.float32)
    total = tl.zeros([DIM_FILLED], dtype=tl.float32)
    for start in range(0, context, BLOCK):
        entry = start + tl.arange(0, BLOCK)
        read = entry < context
        pages = tl.load(entries + entry, mask=read, other=0).to(tl.int64)
        places = pages[:, None] * page_size + offset[None, :]
        mask = read[:, None] & within[None, :]
        key = tl.load(keys + places, mask=mask, other=0.0).to(tl.float32)
        score = tl.where(read, tl.sum(query[None, :] * key, axis=1), float("-inf"))
        top = tl.maximum(highest, tl.max(score, axis=0))  # finite: a block's first entry is always read
        weight, fading = tl.exp(score - top), tl.exp(highest - top)
        value = tl.load(values + places, mask=mask, other=0.0).to(tl.float32)
        total = total * fading + tl.sum(weight[:, None] * value, axis=0)
        normaliser = normaliser * fading + tl.sum(weight, axis=0)
        highest = top
    normaliser = tl.where(context > 0, normaliser, 1.0)  # a row that reads nothing gives zeros
    tl.store(mixed + here, (total / normaliser).to(mixed.dtype.element_ty), mask=within)


def attend_rows(
    q: Tensor, keys: Tensor, values: Tensor, table: Tensor, lines: Tensor, contexts: Tensor, scaling: float
) -> Tensor:
    """Row r of q [n or more, heads, dim] over the first contexts[r] entries of table[lines[r]] -> [..., heads, dim]; rows beyond n give
    zeros.

    `keys` and `values` [pages, kv heads, dim] of the precision of q (fp32, fp16 or bf16), `table` int64 [lines, width], `lines` and
    `contexts` int64 [n]."""
    rows, heads, dim = len(lines), q.shape[1], q.shape[2]
    q = q.contiguous()
    mixed = torch.empty_like(q)
    if len(q) > rows:
        mixed[rows:].zero_()
    tensors = (keys, values, table, lines, contexts)
    assert all(tensor.is_contiguous() for tensor in tensors) and keys.shape == values.shape, "strides are not looked at"
    if rows:
        with torch.cuda.device_of(q):  # launches go to the current device, whichever the tensors are on
            _attend_row[(rows, heads)](
                mixed, q, *tensors, table.shape[-1], scaling,
                HEADS=heads, SHARING=heads // keys.shape[1], DIM=dim, DIM_FILLED=triton.next_power_of_2(dim), BLOCK=BLOCK,
            )  # fmt: skip
    return mixed
