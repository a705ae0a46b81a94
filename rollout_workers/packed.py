"""Weights on their way to the workers, as one array of bytes. Does not import torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Entry:
    """Where a tensor is in the bytes of a `Packed`."""

    dtype: str
    shape: tuple[int, ...]
    start: int


@dataclass(frozen=True, kw_only=True)
class Packed:
    """A state dict as one array of bytes, which processes of one machine can share without a copy of their own."""

    data: Any
    """numpy uint8 [bytes]."""
    entries: Mapping[str, Entry]
    fingerprint: str
    """That of a model which has loaded it."""
