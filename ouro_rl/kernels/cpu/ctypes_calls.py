"""How the functions of the C library are told about tensors."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

WORK_PER_THREAD = 1 << 15
"""Numbers read; less is not worth another thread."""
TYPES = {"p": ctypes.c_void_p, "i": ctypes.c_int64, "n": ctypes.c_int, "f": ctypes.c_float}


def structure(**fields: str) -> Any:
    """The fields of a C structure, by the letters of `TYPES`."""
    return [(name, TYPES[kind]) for name, kind in fields.items()]


class Attention(ctypes.Structure):
    """`Attention` of stages.h."""

    _fields_ = structure(
        out="p", q="p", keys="p", values="p", table="p", lines="p", contexts="p", order="p", starts="p", shared="p",
        count="i", width="i", heads="i", kv_heads="i", dim="i", scaling="f",
    )  # fmt: skip


class Layer(ctypes.Structure):
    """`Layer` of layer_stack.c."""

    _fields_ = structure(
        qkv="p", out="p", gate_up="p", down="p", norm_1="p", norm_2="p", norm_3="p", norm_4="p", keys="p", values="p"
    )


@dataclass(frozen=True, kw_only=True)
class PagedRows:
    """Which pages the rows of an attention read: row r the first contexts[r] of table[lines[r]]; see `Kernels.plan_rows`."""

    table: Tensor
    """int64 [..., width]: its leading axes together are the lines."""
    lines: Tensor
    contexts: Tensor
    """int64 [n]; at least 1."""
    order: Tensor
    starts: Tensor
    shared: Tensor
    count: int
    """Blocks of rows that begin with the same pages: order[starts[b]:starts[b + 1]] share shared[b] pages."""
    pages_read: int

    def attention(self, heads: int, kv_heads: int, dim: int, scaling: float) -> Attention:
        """An attention of these rows, whose tensors are still to be named."""
        tensors = pointers(self.table, self.lines, self.contexts, self.order, self.starts, self.shared)
        return Attention(0, 0, 0, 0, *tensors, self.count, self.table.shape[-1], heads, kv_heads, dim, scaling)


def declare(function: Any, arguments: str, result: Any = ctypes.c_int) -> Any:
    """The function, with its arguments' types by the letters of `TYPES`."""
    function.argtypes, function.restype = [TYPES[kind] for kind in arguments], result
    return function


def pointers(*tensors: Tensor) -> list[int]:
    assert all(tensor.is_contiguous() for tensor in tensors)
    return [tensor.data_ptr() for tensor in tensors]


def is_half(x: Tensor) -> bool:
    assert x.dtype in (torch.bfloat16, torch.float32), x.dtype
    return x.dtype == torch.bfloat16


def threads_for(work: int) -> int:
    """How many threads should read so many numbers."""
    return max(1, min(torch.get_num_threads(), work // WORK_PER_THREAD))


def numbers_of_product(rows: int, weights: int) -> int:
    """As many numbers as are read in the time of a product by so many weights: each is read once, and 16 rows take as long as that."""
    return weights * (16 + rows) // 16


def made(out: Tensor, failed: int) -> Tensor:
    """`out`, unless the function that was to fill it failed."""
    if failed:
        raise MemoryError("no memory for the scratch space of a C kernel")
    return out
