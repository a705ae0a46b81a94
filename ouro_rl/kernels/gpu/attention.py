"""Attention over paged keys and values, in tiles of rows with the same block-table row. Importing this requires
`triton`.

A tile holds up to 16 queries: those of the heads that share a KV head, for one or more rows. It goes through the
block-table row in blocks of entries at fixed offsets, in order, with a running maximum, normalizer and sum of values in
fp32 for each query (online softmax, arXiv 2205.14135). Blocks past the end of a query's context leave it unchanged. A
query's result is therefore bitwise the same in a tile of its own (decoding) and in a tile with its neighbors (prefill,
replay), where keys and values are read once for the whole tile.

Contexts, block-table rows and tiles are data: if every row is a tile, launches are the same for every pass, and nothing
is read back to the host."""

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
"""Entries of a block-table row read per step. It affects results: another order of sums rounds differently."""
HEIGHT = 16
"""Queries per tile: the minimum of the tensor cores' instructions."""


@dataclass(frozen=True, kw_only=True)
class PagedTiles:
    """The pages that rows attend to: row r reads the first contexts[r] pages of table[table_rows[r]]."""

    table: Tensor
    """Block table, int64 [..., width]; `table_rows` indexes its flattened leading axes."""
    table_rows: Tensor
    contexts: Tensor
    """int64 [n]."""
    starts: Tensor
    """int64 [tiles + 1]: tile t holds rows starts[t] to starts[t + 1], all with the same block-table row."""

    @functools.cached_property
    def parts(self) -> list[Part]:
        """The layout for `attend_gradient`."""
        return lay_out_parts(self.table, self.table_rows, self.contexts)


def tile_rows(table: Tensor, table_rows: Tensor, contexts: Tensor, sharing: int, unshared: int) -> PagedTiles:
    """Tiles of consecutive rows with the same block-table row; `sharing` query heads share one KV head.

    Each of the first `unshared` rows is a tile of its own; otherwise the number of tiles is read on the host."""
    assert all(x.is_contiguous() and x.dtype == torch.int64 for x in (table, table_rows, contexts))
    places = torch.arange(len(table_rows) + 1, device=table_rows.device)
    starts, height = places, max(1, HEIGHT // sharing)
    if unshared < len(table_rows) and height > 1:
        begins = torch.ones_like(places, dtype=torch.bool)
        begins[1:-1] = table_rows[1:] != table_rows[:-1]
        begins[: unshared + 1] = True
        before = torch.where(begins, places, 0).cummax(0).values
        starts = ((places - before) % height == 0).nonzero().squeeze(1)
    return PagedTiles(table=table, table_rows=table_rows, contexts=contexts, starts=starts)


@triton.jit(do_not_specialize=["width"])
def _attend_tile(
    mixed, q, keys, values, table, table_rows, contexts, starts, width, scaling,
    HEADS: tl.constexpr, SHARING: tl.constexpr, DIM: tl.constexpr, DIM_FILLED: tl.constexpr, HEIGHT: tl.constexpr,
    BLOCK: tl.constexpr,
):  # fmt: skip
    """`mixed` and `q` [rows, HEADS, DIM], `keys` and `values` [pages, HEADS / SHARING, DIM], `table` [n, width];
    dense.

    DIM_FILLED: DIM rounded up to a power of two, as Triton's ranges require."""
    tile, kv_head = tl.program_id(0), tl.program_id(1)
    first, stop = tl.load(starts + tile), tl.load(starts + tile + 1)
    query = tl.arange(0, HEIGHT)
    row, head = first + query // SHARING, kv_head * SHARING + query % SHARING
    present = (row < stop) & (query < HEIGHT // SHARING * SHARING)
    context = tl.load(contexts + row, mask=present, other=0).to(tl.int32)
    longest = tl.max(context, axis=0)
    entries = table + tl.load(table_rows + first) * width

    column = tl.arange(0, DIM_FILLED)
    inside = column < DIM
    here = (row * HEADS + head)[:, None] * DIM + column[None, :]
    within = present[:, None] & inside[None, :]
    asked = tl.load(q + here, mask=within, other=0.0)
    page_size: tl.constexpr = HEADS // SHARING * DIM
    offset = kv_head * DIM + column

    highest = tl.full([HEIGHT], float("-inf"), tl.float32)
    normalizer = tl.zeros([HEIGHT], dtype=tl.float32)
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
        goes_on = start < context  # if so, the block's first entry is read and the maximum is finite
        top = tl.where(goes_on, tl.maximum(highest, tl.max(score, axis=1)), 0.0)
        weight, fading = tl.exp(score - top[:, None]), tl.exp(highest - top)
        value = tl.load(values + places, mask=mask, other=0.0)
        sums = tl.dot(weight.to(value.dtype), value, total * fading[:, None], input_precision="ieee")
        # Finished queries are kept by selection, not by adding zeros: independent of the hardware's rounding.
        total = tl.where(goes_on[:, None], sums, total)
        normalizer = tl.where(goes_on, normalizer * fading + tl.sum(weight, axis=1), normalizer)
        highest = tl.where(goes_on, top, highest)
    normalizer = tl.where(context > 0, normalizer, 1.0)  # a row that reads no pages gives zeros
    tl.store(mixed + here, (total / normalizer[:, None]).to(mixed.dtype.element_ty), mask=within)


def attend(q: Tensor, keys: Tensor, values: Tensor, rows: PagedTiles, scaling: float) -> Tensor:
    """See `RowKernels`. `keys` and `values` have the precision of q: fp32, fp16 or bf16."""
    (_, heads, dim), count, kv_heads = q.shape, len(rows.table_rows), keys.shape[1]
    q = ready(q)
    mixed = q.new_empty(q.shape)
    if len(q) > count:
        mixed[count:].zero_()
    assert keys.is_contiguous() and values.is_contiguous() and keys.shape == values.shape, (
        "keys and values must be contiguous"
    )
    sharing = heads // kv_heads
    launch(
        _attend_tile,
        (len(rows.starts) - 1, kv_heads),
        mixed,
        q,
        keys,
        values,
        rows.table,
        rows.table_rows,
        rows.contexts,
        rows.starts,
        rows.table.shape[-1],
        scaling,
        HEADS=heads,
        SHARING=sharing,
        DIM=dim,
        DIM_FILLED=max(16, triton.next_power_of_2(dim)),
        HEIGHT=max(HEIGHT, triton.next_power_of_2(sharing)),
        BLOCK=BLOCK,
    )
    return mixed
