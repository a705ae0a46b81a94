"""Stop strings as an automaton over tokens: one table lookup per token, on the device, for any strings.

The states are those of Aho and Corasick (1975) over bytes: how much of which string the text ends with. A token applies
all its bytes at once, so the table is [states, vocabulary]. After these states comes one absorbing state per string: a
sample that reaches it has ended. Of strings that end at the same byte, the first one given counts.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import torch
from torch import Tensor

from ouro_rl.core.sampling_params import StopStrings


class StopStringMatcher:
    """How far the text of each sample is in the stop strings; [slots] tensors."""

    def __init__(self, stop: StopStrings, slots: int, vocabulary: int, device: torch.device):
        self.strings = stop.strings
        self.table = token_table(stop, vocabulary).to(device)
        self.first_end = len(self.table) - len(stop.strings)
        self.states = torch.zeros(slots, dtype=torch.int64, device=device)

    def start(self, rows: Tensor) -> None:
        self.states.index_fill_(0, rows, 0)

    def advance(self, rows: Tensor, tokens: Tensor) -> Tensor:
        """Take the next token of the samples in slots `rows` [n]; bool [n]: it completed a stop string."""
        states = self.table[self.states.index_select(0, rows), tokens].long()
        self.states.index_copy_(0, rows, states)
        return states >= self.first_end

    def ended_by(self, slots: Sequence[int]) -> list[str | None]:
        """The stop string that ended each sample, or None."""
        states = self.states[torch.tensor(slots, dtype=torch.int64, device=self.states.device)].tolist()
        return [None if state < self.first_end else self.strings[state - self.first_end] for state in states]


@lru_cache(maxsize=4)
def token_table(stop: StopStrings, vocabulary: int) -> Tensor:
    """int16 [states + strings, vocabulary]: the state after a token. Ids without a piece write nothing."""
    moves = byte_moves([text.encode() for text in stop.strings])
    table = torch.arange(len(moves), dtype=torch.int16).unsqueeze(1).repeat(1, vocabulary)
    pieces = sorted(enumerate(stop.pieces[:vocabulary]), key=lambda item: -len(item[1]))
    for place in range(len(pieces[0][1]) if pieces else 0):
        longer = [(token, piece[place]) for token, piece in pieces if place < len(piece)]
        pieces = pieces[: len(longer)]
        tokens, following = torch.tensor(longer, dtype=torch.int64).T
        table[:, tokens] = moves[table[:, tokens].long(), following]
    return table


def byte_moves(strings: Sequence[bytes]) -> Tensor:
    """int16 [states + strings, 256]: the automaton's state after a byte; the last `len(strings)` are the ends."""
    tree: list[dict[int, int]] = [{}]
    ends: dict[int, int] = {}
    for number, text in enumerate(strings):
        state = 0
        for byte in text:
            if byte not in tree[state]:
                tree[state][byte] = len(tree)
                tree.append({})
            state = tree[state][byte]
        ends.setdefault(state, number)
    moves = torch.zeros(len(tree) + len(strings), 256, dtype=torch.int16)
    fallback, queue = [0] * len(tree), [0]
    for state in queue:  # by depth: a state's fallback is shorter, and done before it
        moves[state] = moves[fallback[state]]
        for byte, following in tree[state].items():
            fallback[following] = int(moves[fallback[state], byte]) if state else 0
            moves[state, byte] = following
            queue.append(following)
    for state in queue:
        first = min((ends[s] for s in (state, fallback[state]) if s in ends), default=None)
        if first is not None:
            ends[state] = first
    for state, number in ends.items():
        moves[moves == state] = len(tree) + number
    moves[len(tree) :] = torch.arange(len(tree), len(moves), dtype=torch.int16).unsqueeze(1)
    return moves
