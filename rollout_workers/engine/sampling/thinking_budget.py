"""Closing of thoughts that are too long: after so many tokens, the next ones are given instead of drawn.

All state is by slot and on the device, as in the sampler; whether a token is given depends only on the completion
before it, so it is batch-invariant.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ouro_rl.core.sampling_params import ThinkingBudget
from rollout_workers.engine.sampling.stop_strings import StopStringMatcher


class ThinkingCloser:
    """Which samples have ended their thought within the budget; [slots] tensors."""

    def __init__(self, budget: ThinkingBudget, slots: int, vocabulary: int, device: torch.device):
        self.budget = budget
        self.closing = torch.tensor(budget.closing_ids, dtype=torch.int64, device=device)
        self.matcher = StopStringMatcher(budget.end, slots, vocabulary, device)
        self.closed = torch.zeros(slots, dtype=torch.bool, device=device)

    def start(self, rows: Tensor) -> None:
        self.matcher.start(rows)
        self.closed.index_fill_(0, rows, False)

    def force(self, rows: Tensor, indices: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Replace drawn `tokens` [n], at `indices` [n] of the completions in slots `rows` [n], where a thought is being
        closed. Returns which were replaced, bool [n], and the tokens [n]."""
        place = indices - self.budget.tokens
        forced = ~self.closed.index_select(0, rows) & (place >= 0) & (place < len(self.closing))
        given = self.closing.index_select(0, place.clamp(0, len(self.closing) - 1))
        tokens = torch.where(forced, given, tokens)
        ended = self.matcher.advance(rows, tokens) & (indices < self.budget.tokens)
        self.closed.index_copy_(0, rows, self.closed.index_select(0, rows) | ended)
        return forced, tokens

    def resume(self, slot: int, completion: Sequence[int]) -> None:
        """After `start`, continue after these tokens."""
        rows = torch.tensor([slot], device=self.closing.device)
        for index, token in enumerate(completion):
            self.force(rows, torch.full_like(rows, index), torch.full_like(rows, token))

    def spans(self, slots: Sequence[int], lengths: Sequence[int]) -> list[tuple[int, int]]:
        """`Rollout.forced` of the completions in `slots`, which have these `lengths`."""
        start, stop = self.budget.tokens, self.budget.tokens + len(self.closing)
        closed = self.closed[torch.tensor(slots, dtype=torch.int64, device=self.closed.device)].tolist()
        return [
            (0, 0) if within or length <= start else (start, min(stop, length))
            for within, length in zip(closed, lengths, strict=True)
        ]
