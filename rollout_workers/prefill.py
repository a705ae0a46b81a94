"""Prompts on their way through the loops: all positions but the last, always at full depth."""

from __future__ import annotations

from collections.abc import Collection

import torch
from torch import Tensor, nn


class Prefill:
    """Prompts that were admitted together; one loop in each pass. Rows lie by prompt, shortest first, then by position."""

    def __init__(self, prompts: dict[int, tuple[int, ...]], embed: nn.Embedding):
        """`prompts`: tokens by lender slot, at least one token each."""
        self.lengths = {slot: len(tokens) for slot, tokens in sorted(prompts.items(), key=lambda item: len(item[1]))}
        tokens = [token for slot in self.lengths for token in prompts[slot]]
        self.states = embed(torch.tensor(tokens, device=embed.weight.device))
        """[rows, hidden], what the next loop takes in."""
        self.loop = 1
        self._lay_out()

    def _lay_out(self) -> None:
        device = self.states.device
        self.slots = torch.tensor(list(self.lengths), device=device)
        lengths = torch.tensor(list(self.lengths.values()), device=device)
        self.row_slots = self.slots.repeat_interleave(lengths)
        self.positions = torch.cat([torch.arange(length) for length in self.lengths.values()]).to(device)

    def advance(self, states: Tensor) -> None:
        """Take the normed states [rows, hidden] after a loop."""
        self.states, self.loop = states, self.loop + 1

    def keeps(self, closed: Collection[int]) -> bool:
        """Drop prompts whose lender closed because all of its samples have ended already; false when none is left."""
        dropped = self.lengths.keys() & closed
        if dropped:
            kept = ~torch.isin(self.row_slots, torch.tensor(sorted(dropped), device=self.states.device))
            self.states = self.states[kept]
            self.lengths = {slot: length for slot, length in self.lengths.items() if slot not in dropped}
            if self.lengths:
                self._lay_out()
        return bool(self.lengths)
