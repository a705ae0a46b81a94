"""Row operations between the products: norms, RoPE, activation, and their gradients. Importing this requires `triton`.

Sums and roundings are those of `ouro_rl/kernels/cpu/rowwise.c`. One program computes one row, and kernels are not
specialized for the number of rows (nor for strides, which are arbitrary for a single row): rows are batch-invariant.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from ouro_rl.kernels.gpu.launch import launch, ready

NORM_PART = 16
"""Rows whose gradients of the norm's weight are summed by one program."""
COLUMNS = 1024
"""Columns of the activation per program."""


@triton.jit
def _rms_norm(out, x, weight, eps, WIDTH: tl.constexpr, FILLED: tl.constexpr):
    """FILLED, here and below: WIDTH rounded up to a power of two, as Triton's ranges require."""
    row, column = tl.program_id(0).to(tl.int64), tl.arange(0, FILLED)
    within = column < WIDTH
    half = out.dtype.element_ty
    value = tl.load(x + row * WIDTH + column, mask=within, other=0.0).to(tl.float32)
    by = tl.load(weight + column, mask=within, other=0.0).to(half).to(tl.float32)
    scale = tl.rsqrt(tl.sum(value * value, axis=0) / WIDTH + eps)
    normed = (value * scale).to(half).to(tl.float32)  # rounded here and at the end, as in the published model
    tl.store(out + row * WIDTH + column, (normed * by).to(half), mask=within)


@triton.jit(do_not_specialize=["rows"])
def _rms_norm_gradient(
    grad_x, grad_weight, grad, x, weight, rows, eps, WIDTH: tl.constexpr, FILLED: tl.constexpr, PART: tl.constexpr
):
    """Program p handles rows p * PART to (p + 1) * PART; their share of the weight's gradient is grad_weight[p], in
    fp32."""
    part, column = tl.program_id(0).to(tl.int64), tl.arange(0, FILLED)
    inside = column < WIDTH
    half = grad_x.dtype.element_ty
    by = tl.load(weight + column, mask=inside, other=0.0).to(half).to(tl.float32)
    sums = tl.zeros([FILLED], dtype=tl.float32)
    for i in range(0, PART):
        row = part * PART + i
        here, within = row * WIDTH + column, column < tl.where(row < rows, WIDTH, 0)
        value = tl.load(x + here, mask=within, other=0.0).to(tl.float32)
        slope = tl.load(grad + here, mask=within, other=0.0).to(tl.float32)
        scale = tl.rsqrt(tl.sum(value * value, axis=0) / WIDTH + eps)
        back = tl.sum(slope * by * value, axis=0) * scale * scale / WIDTH
        tl.store(grad_x + here, ((slope * by - value * back) * scale).to(half), mask=within)
        sums += slope * value * scale
    tl.store(grad_weight + part * WIDTH + column, sums, mask=inside)


@triton.jit(do_not_specialize=["stride"])
def _rotate(
    out,
    x,
    cosines,
    sines,
    stride,
    BACK: tl.constexpr,
    HEADS: tl.constexpr,
    HEADS_FILLED: tl.constexpr,
    HALF: tl.constexpr,
    HALF_FILLED: tl.constexpr,
):
    """`x` has a row stride of `stride` heads, `out` is dense; HALF is half a head."""
    row = tl.program_id(0).to(tl.int64)
    head, column = tl.arange(0, HEADS_FILLED)[:, None], tl.arange(0, HALF_FILLED)[None, :]
    within = (head < HEADS) & (column < HALF)
    here = head * (2 * HALF) + column
    x += row * stride * (2 * HALF)
    first = tl.load(x + here, mask=within, other=0.0).to(tl.float32)
    second = tl.load(x + HALF + here, mask=within, other=0.0).to(tl.float32)
    cosine = tl.load(cosines + row * HALF + column, mask=column < HALF, other=0.0)
    sine = tl.load(sines + row * HALF + column, mask=column < HALF, other=0.0)
    if BACK:
        sine = -sine
    place = out + row * (HEADS * 2 * HALF) + here
    tl.store(place, (first * cosine - second * sine).to(out.dtype.element_ty), mask=within)
    tl.store(place + HALF, (second * cosine + first * sine).to(out.dtype.element_ty), mask=within)


@triton.jit(do_not_specialize=["stride"])
def _silu_mul(out, gate, up, stride, WIDTH: tl.constexpr, COLUMNS: tl.constexpr):
    """`gate` and `up` have a row stride of `stride` * WIDTH, `out` is dense."""
    row, column = tl.program_id(0).to(tl.int64), tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    within = column < WIDTH
    x = tl.load(gate + row * stride * WIDTH + column, mask=within, other=0.0).to(tl.float32)
    x = tl.where(x < -87.0, -87.0, x)  # the result is already 0 there; avoids inf / inf
    by = tl.load(up + row * stride * WIDTH + column, mask=within, other=0.0).to(tl.float32)
    tl.store(out + row * WIDTH + column, (x / (tl.exp(-x) + 1.0) * by).to(out.dtype.element_ty), mask=within)


@triton.jit(do_not_specialize=["stride"])
def _silu_mul_gradient(grad_gate, grad_up, grad, gate, up, stride, WIDTH: tl.constexpr, COLUMNS: tl.constexpr):
    """`gate` and `up` as in `_silu_mul`; all others are dense."""
    row, column = tl.program_id(0).to(tl.int64), tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    within = column < WIDTH
    half = grad_gate.dtype.element_ty
    x = tl.load(gate + row * stride * WIDTH + column, mask=within, other=0.0).to(tl.float32)
    x = tl.where(x < -87.0, -87.0, x)
    by = tl.load(up + row * stride * WIDTH + column, mask=within, other=0.0).to(tl.float32)
    slope = tl.load(grad + row * WIDTH + column, mask=within, other=0.0).to(tl.float32)
    opened = 1.0 / (tl.exp(-x) + 1.0)
    through = x * opened
    tl.store(grad_up + row * WIDTH + column, (slope * through).to(half), mask=within)
    tl.store(grad_gate + row * WIDTH + column, (slope * by * (opened + through * (1.0 - opened))).to(half), mask=within)


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """See `RowKernels`, also for the functions below."""
    x, width = ready(x), x.shape[-1]
    out = x.new_empty(x.shape)
    sizes = {"WIDTH": width, "FILLED": triton.next_power_of_2(width)}
    launch(_rms_norm, (x.numel() // width,), out, x, ready(weight.detach()), eps, **sizes)
    return out


def rms_norm_gradient(grad: Tensor, x: Tensor, weight: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    grad, x, width = ready(grad), ready(x), x.shape[-1]
    rows = x.numel() // width
    grad_x, parts = x.new_empty(x.shape), triton.cdiv(rows, NORM_PART)
    grad_weight = x.new_empty(parts, width, dtype=torch.float32)
    launch(
        _rms_norm_gradient,
        (parts,),
        grad_x,
        grad_weight,
        grad,
        x,
        ready(weight.detach()),
        rows,
        eps,
        WIDTH=width,
        FILLED=triton.next_power_of_2(width),
        PART=NORM_PART,
    )
    return grad_x, grad_weight.sum(0)


def rotate(x: Tensor, cosines: Tensor, sines: Tensor, *, back: bool = False) -> Tensor:
    rows, heads, dim = x.shape
    if x.stride()[1:] != (dim, 1) or x.stride(0) % dim:
        x = x.contiguous()
    x = ready(x, dense=False)
    out = x.new_empty(x.shape)
    launch(
        _rotate,
        (rows,),
        out,
        x,
        ready(cosines),
        ready(sines),
        x.stride(0) // dim,
        BACK=back,
        HEADS=heads,
        HEADS_FILLED=triton.next_power_of_2(heads),
        HALF=dim // 2,
        HALF_FILLED=triton.next_power_of_2(dim // 2),
    )
    return out


def silu_mul(gate: Tensor, up: Tensor) -> Tensor:
    gate, up = _alike(gate, up)
    rows, width = gate.shape
    out = gate.new_empty(rows, width)
    launch(_silu_mul, _columns(rows, width), out, gate, up, gate.stride(0) // width, WIDTH=width, COLUMNS=COLUMNS)
    return out


def silu_mul_gradient(grad: Tensor, gate: Tensor, up: Tensor) -> tuple[Tensor, Tensor]:
    grad, (gate, up) = ready(grad), _alike(gate, up)
    rows, width = grad.shape
    grad_gate, grad_up = grad.new_empty(grad.shape), grad.new_empty(grad.shape)
    launch(
        _silu_mul_gradient,
        _columns(rows, width),
        grad_gate,
        grad_up,
        grad,
        gate,
        up,
        gate.stride(0) // width,
        WIDTH=width,
        COLUMNS=COLUMNS,
    )
    return grad_gate, grad_up


def _alike(gate: Tensor, up: Tensor) -> tuple[Tensor, Tensor]:
    """Both with the same row stride, a multiple of the width, and contiguous columns; copied if necessary."""
    if gate.stride() != up.stride() or gate.stride(1) != 1 or gate.stride(0) % gate.shape[1]:
        gate, up = gate.contiguous(), up.contiguous()
    return ready(gate, dense=False), ready(up, dense=False)


def _columns(rows: int, width: int) -> tuple[int, int]:
    return rows, triton.cdiv(width, COLUMNS)
