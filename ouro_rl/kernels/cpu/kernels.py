"""Calls of the C kernels on torch tensors, without autograd or selection.

All are for the CPU, in fp32 or bf16, and batch-invariant: a row's result is bitwise the same in any batch and for any
number of threads. Sums are in fp32.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ouro_rl.kernels.cpu.ctypes_calls import (
    PagedRows,
    declare,
    is_half,
    made,
    numbers_of_product,
    pointers,
    threads_for,
)
from ouro_rl.kernels.cpu.layer_stack import NativeStack
from ouro_rl.kernels.cpu.packing import PackedWeights, pack
from ouro_rl.kernels.interface import LayerWeights, Product
from ouro_rl.kernels.processor import has_amx

NORM_PART = 64
"""`rowwise.c` returns one partial gradient of the norm's weight per this many rows."""
ONEDNN_TILE = 64
"""Rows per oneDNN product for batch-invariant results: its results depend on the number of rows."""


def onednn_product(weights: Tensor, tile: int | None) -> Callable[[Tensor], Tensor]:
    """x [n, K] -> [n, N] by oneDNN on packed bf16 weights [N, K].

    In tiles of `tile` rows, padded with zeros (batch-invariant), or all rows at once if None."""
    packed = torch.ops.mkldnn._reorder_linear_weight(weights, tile or ONEDNN_TILE)

    def product(x: Tensor) -> Tensor:
        if tile is None:
            return torch.ops.mkldnn._linear_pointwise(x, packed, None, "none", [], "")
        rows = F.pad(x, (0, 0, 0, -len(x) % tile))
        parts = [torch.ops.mkldnn._linear_pointwise(part, packed, None, "none", [], "") for part in rows.split(tile)]
        return torch.cat(parts)[: len(x)] if parts else x.new_empty(0, len(weights))

    return product


def rounded(weight: Tensor, dtype: torch.dtype) -> Tensor:
    """A norm's weight rounded to the precision of the rows, as in torch, but stored in fp32, as the kernel reads it."""
    weight = weight.detach()
    return weight if weight.dtype == dtype == torch.float32 else weight.to(dtype).float()


class Kernels:
    """The C library's functions as `ouro_rl.kernels.interface.RowKernels`."""

    needs_host_sync = True

    def __init__(self, library: ctypes.CDLL):
        self._linear = declare(library.linear, "pppiiinn")
        self._rms_norm = declare(library.rms_norm, "pppiifnn")
        self._rotate = declare(library.rotate, "ppppiiiifnn")
        self._silu_mul = declare(library.silu_mul, "pppiiinn")
        self._rms_norm_gradient = declare(library.rms_norm_gradient, "pppppiifnn")
        self._silu_mul_gradient = declare(library.silu_mul_gradient, "pppppiiinn")
        self._blocks = declare(library.blocks, "ppppppii", ctypes.c_int64)
        self._attend = declare(library.attend, "pnn")
        self._attend_gradient = declare(library.attend_gradient, "ppppnn")
        self._stack = declare(library.stack, "ppi" + "pppp" + "piiifnn")

    def product(
        self, weights: Sequence[Tensor], dtype: torch.dtype, *, batch_invariant: bool, old: Product | None = None
    ) -> Product:
        """x [n, K] -> [n, N] by these matrices, which are packed again.

        bf16 uses oneDNN if the CPU multiplies matrices by instruction (AMX), in tiles of a fixed height if
        `batch_invariant`. Everything else uses `linear`, which is always batch-invariant."""
        with torch.no_grad():
            matrix = torch.cat([weight.detach().to(dtype) for weight in weights])
        if dtype == torch.bfloat16 and has_amx():
            return Product(multiply=onednn_product(matrix, tile=ONEDNN_TILE if batch_invariant else None))
        packed = pack(matrix)
        return Product(multiply=lambda x: self.linear(x, packed), packed=packed)

    def linear(self, x: Tensor, weights: PackedWeights) -> Tensor:
        """x [M, K] -> [M, N], of the same dtype as the weights; each element is a sum over k in order."""
        assert x.dtype == weights.panels.dtype
        x = x.contiguous()
        rows, outputs, inputs = len(x), weights.outputs, weights.inputs
        out = x.new_empty(rows, outputs)
        threads = threads_for(numbers_of_product(rows, outputs * inputs))
        failed = self._linear(*pointers(out, x, weights.panels), rows, outputs, inputs, is_half(x), threads)
        return made(out, failed)

    def rms_norm(self, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        """x [..., width] / rms * weight [width]."""
        x, weight = x.contiguous(), rounded(weight, x.dtype)
        out, width = torch.empty_like(x), x.shape[-1]
        self._rms_norm(
            out.data_ptr(),
            x.data_ptr(),
            weight.data_ptr(),
            x.numel() // width,
            width,
            eps,
            is_half(x),
            threads_for(x.numel()),
        )
        return out

    def rms_norm_gradient(self, grad: Tensor, x: Tensor, weight: Tensor, eps: float) -> tuple[Tensor, Tensor]:
        """Gradients of x and of the weight (fp32 [width]) from the gradient of `rms_norm`'s output."""
        grad, x, weight = grad.contiguous(), x.contiguous(), rounded(weight, x.dtype)
        grad_x, width = torch.empty_like(x), x.shape[-1]
        rows = x.numel() // width
        grad_weight = torch.empty(-(-rows // NORM_PART), width)
        self._rms_norm_gradient(
            *pointers(grad_x, grad_weight, grad, x, weight), rows, width, eps, is_half(x), threads_for(x.numel())
        )
        return grad_x, grad_weight.sum(0)

    def rotate(self, x: Tensor, cosines: Tensor, sines: Tensor, *, back: bool = False) -> Tensor:
        """Rotary embedding of x [rows, heads, dim] (heads dense, any row stride); cos and sin fp32 [rows, dim / 2]."""
        rows, heads, dim = x.shape
        if x.stride()[1:] != (dim, 1):
            x = x.contiguous()
        out = x.new_empty(x.shape)
        self._rotate(
            *(tensor.data_ptr() for tensor in (out, x, cosines, sines)),
            *(rows, heads, dim, x.stride(0) if rows else 0, -1.0 if back else 1.0, is_half(x), threads_for(x.numel())),
        )
        return out

    def silu_mul(self, gate: Tensor, up: Tensor) -> Tensor:
        """silu(gate) * up, all [rows, width] (inputs with any row stride)."""
        if gate.stride() != up.stride() or gate.stride(1) != 1:
            gate, up = gate.contiguous(), up.contiguous()
        rows, width = gate.shape
        out = gate.new_empty(rows, width)
        stride = gate.stride(0) if rows else 0
        self._silu_mul(
            out.data_ptr(),
            gate.data_ptr(),
            up.data_ptr(),
            rows,
            width,
            stride,
            is_half(gate),
            threads_for(gate.numel()),
        )
        return out

    def silu_mul_gradient(self, grad: Tensor, gate: Tensor, up: Tensor) -> tuple[Tensor, Tensor]:
        """Gradients of gate and up from the gradient of `silu_mul`'s output."""
        if gate.stride() != up.stride() or gate.stride(1) != 1:
            gate, up = gate.contiguous(), up.contiguous()
        grad = grad.contiguous()
        rows, width = grad.shape
        grad_gate, grad_up = torch.empty_like(grad), torch.empty_like(grad)
        dense = pointers(grad_gate, grad_up, grad)
        stride = gate.stride(0) if rows else 0
        self._silu_mul_gradient(
            *dense, gate.data_ptr(), up.data_ptr(), rows, width, stride, is_half(grad), threads_for(grad.numel())
        )
        return grad_gate, grad_up

    def plan_rows(self, table: Tensor, table_rows: Tensor, contexts: Tensor, *, unshared: int = 0) -> PagedRows:
        """See `RowKernels`. `unshared` is not used: rows of different block-table rows can share pages, too."""
        width = table.shape[-1]
        # Rows that begin with the same page probably have a longer shared prefix.
        firsts = table.view(-1, width)[:, 0].index_select(0, table_rows)
        order = torch.argsort(firsts, stable=True)
        starts, shared = (
            torch.empty(len(table_rows) + 1, dtype=torch.int64),
            torch.empty(len(table_rows), dtype=torch.int64),
        )
        tensors = (starts, shared, order, table, table_rows, contexts)
        assert all(tensor.is_contiguous() and tensor.dtype == torch.int64 for tensor in tensors)
        count = self._blocks(*(tensor.data_ptr() for tensor in tensors), len(table_rows), width)
        return PagedRows(
            table=table,
            table_rows=table_rows,
            contexts=contexts,
            order=order,
            starts=starts,
            shared=shared,
            count=count,
            pages_read=int(contexts.sum()),
        )

    def attend(self, q: Tensor, keys: Tensor, values: Tensor, rows: PagedRows, scaling: float) -> Tensor:
        """Attention of q [n or more, heads, dim] over keys and values [pages, kv heads, dim]; others give zeros."""
        q = q.contiguous()
        mixed = torch.empty_like(q)
        mixed[len(rows.table_rows) :] = 0
        failed = self._attend(*attention(mixed, q, keys, values, rows, scaling))
        return made(mixed, failed)

    def attend_gradient(
        self, grad: Tensor, q: Tensor, keys: Tensor, values: Tensor, rows: PagedRows, scaling: float
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Gradients of q [n, heads, dim], keys and values [pages, kv heads, dim] from the gradient of the output."""
        q, grad = q.contiguous(), grad.contiguous()
        assert grad.dtype == q.dtype and len(q) == len(rows.table_rows)
        grad_q = torch.empty_like(q)
        grad_keys, grad_values = (torch.zeros(keys.shape, dtype=torch.float32) for _ in range(2))
        call = attention(grad_q, q, keys, values, rows, scaling)
        failed = self._attend_gradient(*pointers(grad_keys, grad_values, grad), *call)
        return made(grad_q, failed), grad_keys.to(keys.dtype), grad_values.to(values.dtype)

    def stack(
        self,
        layers: Sequence[LayerWeights],
        norm: Tensor,
        eps: float,
        dtype: torch.dtype,
        *,
        heads: int,
        scaling: float,
    ) -> NativeStack | None:
        """See `RowKernels`. None with oneDNN's products, which the C library cannot call."""
        if any(layer.qkv.packed is None for layer in layers):
            return None
        layers = [replace(layer, norms=tuple(rounded(weight, dtype) for weight in layer.norms)) for layer in layers]
        return NativeStack(self._stack, layers, rounded(norm, dtype), eps, heads=heads, scaling=scaling)


def attention(
    out: Tensor, q: Tensor, keys: Tensor, values: Tensor, rows: PagedRows, scaling: float
) -> tuple[Any, bool, int]:
    """The last arguments of both attention functions."""
    _, heads, dim = q.shape
    assert q.dtype == keys.dtype
    call = rows.attention(heads, keys.shape[1], dim, scaling)
    call.out, call.q, call.keys, call.values = pointers(out, q, keys, values)
    return ctypes.byref(call), is_half(q), threads_for(rows.pages_read * heads * dim)
