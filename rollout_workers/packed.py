"""Weights on their way to the workers, as arrays of bytes. Does not import torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import xxhash


@dataclass(frozen=True, kw_only=True)
class Packed:
    """A tensor as an array of bytes, which processes of one machine can share without copies of their own."""

    dtype: str
    shape: tuple[int, ...]
    data: Any
    """numpy uint8 [bytes]."""

    def digest(self) -> str:
        """Hash of type, shape and bytes: no cryptographic one, which would take longer than the transfer."""
        hashed = xxhash.xxh3_128(f"{self.dtype} {self.shape} ".encode())
        hashed.update(self.data)
        return hashed.hexdigest()


Part = Mapping[str, Packed]
"""Some tensors of a state dict, by name: what is sent at a time."""


def fingerprint_of(digests: Mapping[str, str]) -> str:
    """The fingerprint of a state dict, from the digests of its tensors by name."""
    lines = (f"{name} {digest}\n" for name, digest in sorted(digests.items()))
    return xxhash.xxh3_128_hexdigest("".join(lines).encode())
