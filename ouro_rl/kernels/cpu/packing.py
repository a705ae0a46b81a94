"""Weight matrices packed in the order in which the C products read them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

PANEL = 32
"""Columns that `linear.c` computes together."""
LANES = 16
"""Half of a panel: bf16 column c is stored next to column c + LANES."""


@dataclass(frozen=True, kw_only=True)
class PackedWeights:
    """A packed matrix [N, K]."""

    panels: Tensor
    """fp32 [ceil(N / 32), K, 32]; bf16 [ceil(N / 32), K, 16, 2]: columns c and c + 16 are adjacent."""
    outputs: int

    @property
    def inputs(self) -> int:
        return self.panels.shape[1]


def pack(weights: Tensor) -> PackedWeights:
    """Pack weights [N, K], fp32 or bf16."""
    outputs, inputs = weights.shape
    filled = F.pad(weights.detach(), (0, 0, 0, -outputs % PANEL))
    panels = filled.view(-1, PANEL, inputs).transpose(1, 2)
    if weights.dtype == torch.bfloat16:
        panels = panels.unflatten(2, (2, LANES)).transpose(2, 3)
    return PackedWeights(panels=panels.contiguous(), outputs=outputs)
