"""Attention over paged keys and values in tiles of rows that read the same line of the page table. Importing this needs `triton`.

A tile holds up to 16 queries: those of the heads that share a key-value head, of one or more rows. It walks the line in blocks of
entries that lie at fixed places, from the first to the last, with a running maximum, normaliser and sum of values in fp32 for each query
(online softmax, arXiv 2205.14135). A query whose context has ended is left as it is by all further blocks. So its bits are the same in a
tile of its own, as it is decoded, and among its neighbours, as a prompt is read and a completion replayed: there keys and values are read
once for the whole tile.

Contexts, lines and tiles are data. Where every row is a tile, launches are alike from pass to pass, and nothing comes back to the host.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from torch import Tensor

from ouro_rl.kernels.gpu.attention_gradient import Part, lay_out_parts
from ouro_rl.kernels.gpu.launch import launch, ready

BLOCK = 64
"""Entries of a line that are read together. Part of the result: another order of sums rounds differently."""
HEIGHT = 16
"""Queries of a tile: what the tensor cores' instructions take at least."""


@dataclass(frozen=True, kw_only=True)
class PagedTiles:
    """Which pages the rows of an attention read: row r the first contexts[r] of table[lines[r]]."""

    table: Tensor
    """int64 [..., width]: its leading axes together are the lines."""
    lines: Tensor
    contexts: Tensor
    """int64 [n]."""
    starts: Tensor
    """int64 [tiles + 1]: tile t is of rows starts[t] to starts[t + 1], which have one line."""

    @functools.cached_property
    def parts(self) -> list[Part]:
        """For the gradients."""
        return lay_out_parts(self.table, self.lines, self.contexts)


def tile_rows(table: Tensor, lines: Tensor, contexts: Tensor, sharing: int, apart: int) -> PagedTiles:
    """Tiles of consecutive rows of one line, where `sharing` heads read one key-value head. The first `apart` rows are tiles of their
    own; the device is asked for the number of tiles if there are others."""
    assert all(x.is_contiguous() and x.dtype == torch.int64 for x in (table, lines, contexts))
    places = torch.arange(len(lines) + 1, device=lines.device)
    starts, height = places, max(1, HEIGHT // sharing)
    if apart < len(lines) and height > 1:
        begins = torch.ones_like(places, dtype=torch.bool)
        begins[1:-1] = lines[1:] != lines[:-1]
        begins[: apart + 1] = True
        before = torch.where(begins, places, 0).cummax(0).values
        starts = ((places - before) % height == 0).nonzero().squeeze(1)
    return PagedTiles(table=table, lines=lines, contexts=contexts, starts=starts)


@triton.jit(do_not_specialize=["width"])
def _attend_tile(
    mixed, q, keys, values, table, lines, contexts, starts, width, scaling,
    HEADS: tl.constexpr, SHARING: tl.constexpr, DIM: tl.constexpr, DIM_FILLED: tl.constexpr, HEIGHT: tl.constexpr,
    BLOCK: tl.constexpr,
):  # fmt: skip
    """`mixed` and `q` [rows, HEADS, DIM], `keys` and `values` [pages, HEADS / SHARING, DIM], `table` [lines, width], all dense.

    DIM_FILLED is DIM up to the next power of two, which Triton's ranges must be."""
    tile, kv_head = tl.program_id(0), tl.program_id(1)
    first, stop = tl.load(starts + tile), tl.load(starts + tile + 1)
    query = tl.arange(0, HEIGHT)
    row, head = first + query // SHARING, kv_head * SHARING + query % SHARING
    present = (row < stop) & (query < HEIGHT // SHARING * SHARING)
    context = tl.load(contexts + row, mask=present, other=0).to(tl.int32)
    longest = tl.max(context, axis=0)
    entries = table + tl.load(lines + first) * width

    column = tl.arange(0, DIM_FILLED)
    inside = column < DIM
    here = (row * HEADS + head)[:, None] * DIM + column[None, :]
    within = present[:, None] & inside[None, :]
    asked = tl.load(q + here, mask=within, other=0.0)
    page_size: tl.constexpr = HEADS // SHARING * DIM
    offset = kv_head * DIM + column

    highest = tl.full([HEIGHT], float("-inf"), tl.float32)
    normaliser = tl.zeros([HEIGHT], dtype=tl.float32)
    total = tl.zeros([HEIGHT, DIM_FILLED], dtype=tl.float32)
    for start in range(0, longest, BLOCK):
        entry = start + tl.arange(0, BLOCK)
        read = entry < longest
        pages = tl.load(entries + entry, mask=read, other=0)
        places = pages[:, None] * page_size + offset[None, :]
        mask = read[:, None] & inside[None, :]
        key = tl.load(keys + places, mask=mask, other=0.0)
        score = tl.dot(asked, tl.trans(key), input_precision="ieee") * scaling
        score = tl.where(entry[None, :] < context[:, None], score, float("-inf"))
        goes_on = start < context  # then the block's first entry is read, and the maximum is finite
        top = tl.where(goes_on, tl.maximum(highest, tl.max(score, axis=1)), 0.0)
        weight, fading = tl.exp(score - top[:, None]), tl.exp(highest - top)
        value = tl.load(values + places, mask=mask, other=0.0)
        sums = tl.dot(weight.to(value.dtype), value, total * fading[:, None], input_precision="ieee")
        # What has ended stays as it is by choice, not by adding zeros: that leaves no question to the hardware.
        total = tl.where(goes_on[:, None], sums, total)
        normaliser = tl.where(goes_on, normaliser * fading + tl.sum(weight, axis=1), normaliser)
        highest = tl.where(goes_on, top, highest)
    normaliser = tl.where(context > 0, normaliser, 1.0)  # a row that reads nothing gives zeros
    tl.store(mixed + here, (total / normaliser[:, None]).to(mixed.dtype.element_ty), mask=within)


def attend(q: Tensor, keys: Tensor, values: Tensor, rows: PagedTiles, scaling: float) -> Tensor:
    """See `RowKernels`. `keys` and `values` of the precision of q: fp32, fp16 or bf16."""
    (_, heads, dim), count, kv_heads = q.shape, len(rows.lines), keys.shape[1]
    q = ready(q)
    mixed = q.new_empty(q.shape)
    if len(q) > count:
        mixed[count:].zero_()
    assert keys.is_contiguous() and values.is_contiguous() and keys.shape == values.shape, "strides are not looked at"
    sharing = heads // kv_heads
    launch(
        _attend_tile, (len(rows.starts) - 1, kv_heads), mixed, q, keys, values, rows.table, rows.lines, rows.contexts,
        rows.starts, rows.table.shape[-1], scaling, HEADS=heads, SHARING=sharing, DIM=dim,
        DIM_FILLED=max(16, triton.next_power_of_2(dim)), HEIGHT=max(HEIGHT, triton.next_power_of_2(sharing)), BLOCK=BLOCK,
    )  # fmt: skip
    return mixed
