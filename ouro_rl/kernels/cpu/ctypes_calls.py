"""Passing tensors to the functions of the C library."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

WORK_PER_THREAD = 1 << 15
"""Numbers read per thread; less work than this is not worth another thread."""
TYPES = {"p": ctypes.c_void_p, "i": ctypes.c_int64, "n": ctypes.c_int, "f": ctypes.c_float}


def structure(**fields: str) -> Any:
    """The fields of a C structure, with types as letters of `TYPES`."""
    return [(name, TYPES[kind]) for name, kind in fields.items()]


class Attention(ctypes.Structure):
    """`Attention` in stages.h."""

    _fields_ = structure(
        out="p",
        q="p",
        keys="p",
        values="p",
        table="p",
        table_rows="p",
        contexts="p",
        order="p",
        starts="p",
        shared="p",
        count="i",
        width="i",
        heads="i",
        kv_heads="i",
        dim="i",
        scaling="f",
    )


class Layer(ctypes.Structure):
    """`Layer` in layer_stack.c."""

    _fields_ = structure(
        qkv="p", out="p", gate_up="p", down="p", norm_1="p", norm_2="p", norm_3="p", norm_4="p", keys="p", values="p"
    )


@dataclass(frozen=True, kw_only=True)
class PagedRows:
    """The result of `plan_rows`: row r attends to the first contexts[r] pages of table[table_rows[r]]."""

    table: Tensor
    """Block table, int64 [..., width]; `table_rows` indexes its flattened leading axes."""
    table_rows: Tensor
    contexts: Tensor
    """int64 [n], at least 1."""
    order: Tensor
    starts: Tensor
    shared: Tensor
    count: int
    """Number of blocks: rows order[starts[b]:starts[b + 1]] of block b share their first shared[b] pages."""
    pages_read: int

    def attention(self, heads: int, kv_heads: int, dim: int, scaling: float) -> Attention:
        """The C structure for these rows; the caller sets `out`, `q`, `keys` and `values`."""
        tensors = pointers(self.table, self.table_rows, self.contexts, self.order, self.starts, self.shared)
        return Attention(0, 0, 0, 0, *tensors, self.count, self.table.shape[-1], heads, kv_heads, dim, scaling)


def declare(function: Any, arguments: str, result: Any = ctypes.c_int) -> Any:
    """Declare a function's argument types (letters of `TYPES`) and result type; returns it."""
    function.argtypes, function.restype = [TYPES[kind] for kind in arguments], result
    return function


def pointers(*tensors: Tensor) -> list[int]:
    assert all(tensor.is_contiguous() for tensor in tensors)
    return [tensor.data_ptr() for tensor in tensors]


def is_half(x: Tensor) -> bool:
    assert x.dtype in (torch.bfloat16, torch.float32), x.dtype
    return x.dtype == torch.bfloat16


def threads_for(work: int) -> int:
    """Number of threads for reading `work` numbers."""
    return max(1, min(torch.get_num_threads(), work // WORK_PER_THREAD))


def numbers_of_product(rows: int, weights: int) -> int:
    """The work of a product, in numbers read: each weight is read once, and computing 16 rows takes as long as that."""
    return weights * (16 + rows) // 16


def made(out: Tensor, failed: int) -> Tensor:
    """`out`. Raises MemoryError if the function that fills it failed."""
    if failed:
        raise MemoryError("no memory for the scratch space of a C kernel; lower the batch size")
    return out
