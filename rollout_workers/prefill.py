"""Prompts on their way through the loops: all positions but the last, always at full depth."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from itertools import groupby

import torch
from torch import Tensor, nn


@dataclass(frozen=True, kw_only=True)
class Block:
    """Prompts of equal padded length, attended together."""

    prompts: int
    length: int
    places: Tensor
    """int64 [rows]: where the rows lie among the prompts * length padded ones."""


class Prefill:
    """Prompts that were admitted together; one loop in each pass. Rows lie by prompt, then by position."""

    def __init__(
        self,
        prompts: dict[int, tuple[int, ...]],
        embed: nn.Embedding,
        padded: Tensor,
        most: Callable[[int], int],
    ):
        """`prompts`: tokens by lender slot; `padded`: padded length by length; `most`: prompts in a block, by padded length."""
        self.lengths = {slot: len(tokens) for slot, tokens in sorted(prompts.items(), key=lambda item: len(item[1]))}
        self.padded, self.most, self.device = padded, most, embed.weight.device
        tokens = [token for slot in self.lengths for token in prompts[slot]]
        self.states = embed(torch.tensor(tokens, device=self.device))
        """[rows, hidden], what the next loop takes in."""
        self.loop = 1
        self._lay_out()

    def _lay_out(self) -> None:
        self.slots = torch.tensor(list(self.lengths), device=self.device)
        lengths = torch.tensor(list(self.lengths.values()), device=self.device)
        self.row_slots = self.slots.repeat_interleave(lengths)
        self.positions = torch.cat([torch.arange(length) for length in self.lengths.values()]).to(self.device)
        self.blocks = []
        for padded, group in groupby(self.lengths.values(), key=lambda length: int(self.padded[length])):
            group = list(group)
            for first in range(0, len(group), self.most(padded)):
                part = group[first : first + self.most(padded)]
                places = torch.cat([torch.arange(length) + i * padded for i, length in enumerate(part)])
                self.blocks.append(Block(prompts=len(part), length=padded, places=places.to(self.device)))

    def advance(self, states: Tensor) -> None:
        """Take the normed states [rows, hidden] after a loop."""
        self.states, self.loop = states, self.loop + 1

    def keeps(self, closed: Collection[int]) -> bool:
        """Drop prompts whose lender closed because all of its samples have ended already; false when none is left."""
        dropped = self.lengths.keys() & closed
        if dropped:
            kept = ~torch.isin(self.row_slots, torch.tensor(sorted(dropped), device=self.device))
            self.states = self.states[kept]
            self.lengths = {slot: length for slot, length in self.lengths.items() if slot not in dropped}
            if self.lengths:
                self._lay_out()
        return bool(self.lengths)
