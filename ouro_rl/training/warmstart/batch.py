"""Batches of demonstrations as token ids."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Batch:
    """n demonstrations, right-padded to S tokens."""

    ids: Tensor
    """[n, S]: prompt, then the answer of the last loop."""
    mask: Tensor
    """bool [n, S]: the completions."""
    targets: Tensor
    """[L, n, S]: `ids` with the answer that each loop should give; L = 1 if all loops should give the same."""

    @property
    def loop_targets(self) -> Tensor:
        """The tokens to predict, [L, tokens in the mask]."""
        return self.targets[:, self.mask]


def padded(demonstrations: Sequence[tuple[list[int], Sequence[list[int]]]], pad_token_id: int) -> Batch:
    """(token ids of the prompt, those of each loop's answer) -> a batch. A demonstration has one answer for all loops,
    or one for each, all of the same length; the same number in every demonstration. Raises ValueError otherwise."""
    length = max(len(prompt) + len(answers[-1]) for prompt, answers in demonstrations)
    (loops,) = {len(answers) for _, answers in demonstrations}
    targets = torch.full((loops, len(demonstrations), length), pad_token_id)
    mask = torch.zeros(len(demonstrations), length, dtype=torch.bool)
    for row, (prompt, answers) in enumerate(demonstrations):
        end = len(prompt) + len(answers[-1])
        targets[:, row, :end] = torch.tensor([prompt + answer for answer in answers])
        mask[row, len(prompt) : end] = True
    return Batch(ids=targets[-1], mask=mask, targets=targets)
