"""Fixes Triton's interpreter for bf16: in 3.9, products use the bits of a number as its value, and it truncates."""

import numpy as np
import triton.language as tl
from triton.runtime import interpreter

_dot, _convert = interpreter.InterpreterBuilder.create_dot, interpreter._convert_float


def _create_dot(self, a, b, *rest):
    return _dot(self, _widened(a), _widened(b), *rest)


def _widened(operand):
    if operand.dtype.scalar != tl.bfloat16 or operand.data.dtype != np.uint16:
        return operand
    return interpreter.TensorHandle((operand.data.astype(np.uint32) << 16).view(np.float32), tl.float32)


def _convert_float(numbers, of, to, rounding):
    """fp32 -> bf16, rounding to nearest even, as on every GPU."""
    if of != tl.float32 or to != tl.bfloat16:
        return _convert(numbers, of, to, rounding)
    numbers = np.ascontiguousarray(numbers, dtype=np.float32)
    bits = numbers.view(np.uint32)
    halves = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16
    return np.where(np.isnan(numbers), 0x7FC0, halves).astype(np.uint16)


interpreter.InterpreterBuilder.create_dot = _create_dot
interpreter._convert_float = _convert_float
