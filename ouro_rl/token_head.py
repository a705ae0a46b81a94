"""The trainer's reading of the head: log-prob of the recorded token and entropy, never a [tokens, vocabulary] tensor for all.

The rows that carry loss go through head and distribution in chunks; backward computes a chunk's logits again. What is alive at a time is
a few tensors of one chunk. Chunks are whole row tiles, so each row comes out as the workers' did, bit for bit.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ouro_rl.model.layers import ROW_TILE, in_tiles
from ouro_rl.policy import Recorded, chosen_logprobs, entropy, token_distribution
from ouro_rl.types import TokenFilters

CHUNK_BYTES = {"cpu": 2**26, "cuda": 2**28}
"""Of one chunk's logits in fp32. A chunk costs one more reading and writing of the head's gradient, so a GPU gets larger ones."""


@dataclass(frozen=True, kw_only=True)
class Completions:
    """The tokens of n sequences, for logit processors: prefixes are cut from them as they are needed."""

    prompts: Sequence[Sequence[int]]
    completions: Sequence[Sequence[int]]

    def prefixes(self, start: int, stop: int) -> list[list[int]]:
        """All tokens before each of the completion tokens number `start` to `stop`, counted through all sequences."""
        found, first = [], 0
        for prompt, completion in zip(self.prompts, self.completions, strict=True):
            for place in range(max(start - first, 0), min(stop - first, len(completion))):
                found.append([*prompt, *completion[:place]])
            first += len(completion)
        return found


@dataclass(frozen=True, kw_only=True)
class TokenReader:
    """`OuroForCausalLM.forward(read_head=...)` for the recorded tokens of a batch: rows in the order of the sequences."""

    recorded: Recorded
    temperature: float
    filters: TokenFilters = TokenFilters()
    completions: Completions | None = None
    """Needed by logit processors alone."""
    chunk_rows: int | None = None
    """None: as many as `CHUNK_BYTES` allow."""

    def __call__(self, head: nn.Module, states: Tensor) -> tuple[Tensor, Tensor]:
        """States [n, hidden] -> log-probs of the recorded tokens [n], and entropies in nats [n] without gradient; fp32."""
        rows = self.chunk_rows or chunk_rows(head.weight.shape[0], states.device)
        assert rows % ROW_TILE == 0, rows
        if len(states) <= rows:
            return self._read(head, states, 0, len(states))
        parts = [
            checkpoint(
                self._read, head, states[start : start + rows], start, min(start + rows, len(states)),
                use_reentrant=False, preserve_rng_state=False,
            )
            for start in range(0, len(states), rows)
        ]  # fmt: skip
        log_probs, entropies = zip(*parts, strict=True)
        return torch.cat(log_probs), torch.cat(entropies)

    def _read(self, head: nn.Module, states: Tensor, start: int, stop: int) -> tuple[Tensor, Tensor]:
        """Rows `start` to `stop` of the batch, whose `states` [rows, hidden] these are."""
        prefixes = None
        if self.filters.logit_processors:
            assert self.completions is not None
            prefixes = self.completions.prefixes(start, stop)
        token_ids = self.recorded.token_ids[start:stop]
        here = Recorded(token_ids=token_ids, support_sizes=self.recorded.support_sizes[start:stop])
        logits = head(in_tiles(states))[: len(states)]
        log_probs, _ = token_distribution(logits, self.temperature, self.filters, prefixes=prefixes, recorded=here)
        return chosen_logprobs(log_probs, token_ids), entropy(log_probs.detach())


def chunk_rows(vocabulary: int, device: torch.device) -> int:
    """Rows of a chunk: a whole number of row tiles, at least one."""
    tiles = CHUNK_BYTES.get(device.type, CHUNK_BYTES["cpu"]) // (4 * vocabulary * ROW_TILE)
    return max(1, tiles) * ROW_TILE
