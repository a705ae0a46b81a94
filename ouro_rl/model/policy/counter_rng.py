"""Counter-based random numbers by (seed, position, stream): the same in any batch and on any device."""

from __future__ import annotations

from torch import Tensor


def uniforms(seeds: Tensor, positions: Tensor, stream: int | Tensor) -> Tensor:
    """Uniform random numbers in [0, 1), a pure function of (seed, position, stream): a sample depends only on its seed.

    int64 tensors [n] -> fp64 [n]. SplitMix64's finalizer (Steele et al., 2014), applied twice."""
    state = _mix(seeds + _wrap(0x9E3779B97F4A7C15) * (positions + 1))
    step = 0xD1B54A32D192ED03
    state = _mix(
        state + (_wrap(step * (stream + 1) % 2**64) if isinstance(stream, int) else _wrap(step) * (stream + 1))
    )
    return _shift(state, 11).double() * 2.0**-53


TOKEN_STREAM, DEPTH_STREAM, PROBE_STREAM = 0, 1, 2


def _mix(state: Tensor) -> Tensor:
    state = (state ^ _shift(state, 30)) * _wrap(0xBF58476D1CE4E5B9)
    state = (state ^ _shift(state, 27)) * _wrap(0x94D049BB133111EB)
    return state ^ _shift(state, 31)


def _shift(state: Tensor, bits: int) -> Tensor:
    """Logical right shift; torch's int64 has only the arithmetic shift."""
    return (state >> bits) & ((1 << (64 - bits)) - 1)


def _wrap(constant: int) -> int:
    """An unsigned 64-bit constant as the int64 with the same bits."""
    return constant - (1 << 64) if constant >= 1 << 63 else constant
