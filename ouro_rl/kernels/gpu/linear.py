"""Batch-invariant matrix products in tiles of fixed sizes, as a Triton kernel. Importing this module requires `triton`.

Each element is a sum over k in order, in the same steps for any number of rows and any position of its row in a tile.
Libraries, in contrast, choose different kernels for different numbers of rows, which sum in different orders.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from ouro_rl.kernels.gpu.launch import launch, ready

HALF = {"ROWS": 64, "COLUMNS": 32, "DEPTH": 128, "num_warps": 4, "num_stages": 4}
FULL = {"ROWS": 64, "COLUMNS": 32, "DEPTH": 32, "num_warps": 4, "num_stages": 3}
"""Tiles in half precision and in fp32. Small ones: decoding has few rows, and more programs read the weights faster."""
WIDE = {"ROWS": 128, "COLUMNS": 128, "DEPTH": 128, "num_warps": 8, "num_stages": 3}
"""Tiles in half precision for many rows, which read each number from the L2 cache less often. The steps over k are
those of `HALF`; `self_test` checks that the device's instructions for both sum in the same order."""
WIDE_FROM = 512
"""Number of rows from which `WIDE` tiles are used."""
FEW = 4
"""Products with at most this many outputs use `_dot_rows`: tiles would be mostly empty. The exit gate has one
output."""
TILES_TOGETHER = 16
"""Tiles of rows that are scheduled together for each panel of weights, so that both come from the L2 cache."""


@triton.jit(do_not_specialize=["rows"])
def _linear(
    out,
    x,
    weights,
    rows,
    OUTPUTS: tl.constexpr,
    INPUTS: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    DEPTH: tl.constexpr,
    TOGETHER: tl.constexpr,
):
    """`x` [rows, INPUTS], `weights` [OUTPUTS, INPUTS], `out` [rows, OUTPUTS], all dense."""
    panels: tl.constexpr = (OUTPUTS + COLUMNS - 1) // COLUMNS
    program = tl.program_id(0)
    begin = program // (TOGETHER * panels) * TOGETHER
    together = tl.minimum(tl.cdiv(rows, ROWS) - begin, TOGETHER)
    within = program % (TOGETHER * panels)
    row = ((begin + within % together) * ROWS + tl.arange(0, ROWS)).to(tl.int64)
    column = (within // together * COLUMNS + tl.arange(0, COLUMNS)).to(tl.int64)
    k = tl.arange(0, DEPTH)
    left, right = x + row[:, None] * INPUTS + k[None, :], weights + column[None, :] * INPUTS + k[:, None]
    here, there = row[:, None] < rows, column[None, :] < OUTPUTS

    total = tl.zeros([ROWS, COLUMNS], dtype=tl.float32)
    for start in range(0, INPUTS, DEPTH):
        if INPUTS % DEPTH == 0:
            a, b = tl.load(left + start, mask=here, other=0.0), tl.load(right + start, mask=there, other=0.0)
        else:
            inside = start + k < INPUTS
            a = tl.load(left + start, mask=here & inside[None, :], other=0.0)
            b = tl.load(right + start, mask=there & inside[:, None], other=0.0)
        total = tl.dot(a, b, total, input_precision="ieee")
    tl.store(out + row[:, None] * OUTPUTS + column[None, :], total.to(out.dtype.element_ty), mask=here & there)


@triton.jit
def _dot_rows(out, x, weights, OUTPUTS: tl.constexpr, INPUTS: tl.constexpr, FILLED: tl.constexpr):
    """Like `_linear`, with one program per element. FILLED: INPUTS rounded up to a power of two."""
    row, output, column = tl.program_id(0).to(tl.int64), tl.program_id(1), tl.arange(0, FILLED)
    within = column < INPUTS
    a = tl.load(x + row * INPUTS + column, mask=within, other=0.0).to(tl.float32)
    b = tl.load(weights + output * INPUTS + column, mask=within, other=0.0).to(tl.float32)
    tl.store(out + row * OUTPUTS + output, tl.sum(a * b, axis=0).to(out.dtype.element_ty))


def linear(x: Tensor, weights: Tensor, *, wide: bool = False) -> Tensor:
    """x [M, K] times weights [N, K] (dense) transposed -> [M, N], all in one precision; sums in fp32.

    `wide`: use larger tiles for many rows."""
    assert x.dtype == weights.dtype and weights.is_contiguous()
    x = ready(x)
    (rows, inputs), outputs = x.shape, len(weights)
    out = x.new_empty(rows, outputs)
    if outputs <= FEW:
        filled = triton.next_power_of_2(inputs)
        launch(_dot_rows, (rows, outputs), out, x, ready(weights), OUTPUTS=outputs, INPUTS=inputs, FILLED=filled)
        return out
    tile = FULL if x.dtype == torch.float32 else WIDE if wide and rows >= WIDE_FROM else HALF
    programs = triton.cdiv(rows, tile["ROWS"]) * triton.cdiv(outputs, tile["COLUMNS"])
    launch(
        _linear,
        (programs,),
        out,
        x,
        ready(weights),
        rows,
        OUTPUTS=outputs,
        INPUTS=inputs,
        TOGETHER=TILES_TOGETHER,
        **tile,
    )
    return out
