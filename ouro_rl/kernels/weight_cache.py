"""Packed copies of weights, and detection of changed weights."""

from __future__ import annotations

import weakref
from collections.abc import Sequence

import torch
from torch import Tensor

from ouro_rl.kernels.interface import Product, RowKernels


class CachedProduct:
    """The product for some weights at their current version. Holds weak references, so a reused address is detected."""

    def __init__(self, weights: Sequence[Tensor]):
        self.weights = [weakref.ref(weight) for weight in weights]
        self._version: tuple = ()
        self._product: Product | None = None

    def is_of(self, weights: Sequence[Tensor]) -> bool:
        return refer_to(self.weights, weights)

    def forget_with(self, kept: dict[tuple, CachedProduct], key: tuple, weights: Sequence[Tensor]) -> None:
        """Remove this entry from `kept` when the first of its weights is freed."""

        def forget(_: object) -> None:
            if kept.get(key) is self:
                del kept[key]

        self.weights = [weakref.ref(weight, forget) for weight in weights]

    def product(
        self, kernels: RowKernels, weights: Sequence[Tensor], dtype: torch.dtype, batch_invariant: bool
    ) -> Product:
        version = version_of(weights)
        if self._product is None or self._version != version:
            self._product = kernels.product(weights, dtype, batch_invariant=batch_invariant, old=self._product)
            self._version = version
        return self._product


optimizer_steps = 0
"""Steps of all optimizers in this process: fused ones change weights without a new `_version`."""


def version_of(weights: Sequence[Tensor]) -> tuple:
    """A key that changes when any of these tensors is modified or moved."""
    return optimizer_steps, *((weight._version, weight.data_ptr()) for weight in weights)


def refer_to(references: Sequence[weakref.ref], tensors: Sequence[Tensor]) -> bool:
    """Whether `references` refer to exactly these tensors."""
    return all(reference() is tensor for reference, tensor in zip(references, tensors, strict=True))


def count_step(*_: object) -> None:
    global optimizer_steps
    optimizer_steps += 1
