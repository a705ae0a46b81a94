"""Weight matrices packed in the order in which the C products read them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

PANEL = 32
"""Columns that `linear.c` computes together."""


@dataclass(frozen=True, kw_only=True)
class PackedWeights:
    """A packed matrix [N, K]."""

    panels: Tensor
    """fp32 [ceil(N / 32), K, 32]; bf16 [ceil(N / 32), ceil(K / 2), 32, 2]: a column's numbers are stored in pairs."""
    outputs: int
    inputs: int


def pack(weights: Tensor) -> PackedWeights:
    """Pack weights [N, K], fp32 or bf16."""
    outputs, inputs = weights.shape
    together = 2 if weights.dtype == torch.bfloat16 else 1
    filled = F.pad(weights.detach(), (0, -inputs % together, 0, -outputs % PANEL))
    panels = filled.view(-1, PANEL, filled.shape[1] // together, together).transpose(1, 2)
    return PackedWeights(
        panels=(panels if together > 1 else panels.squeeze(3)).contiguous(), outputs=outputs, inputs=inputs
    )
