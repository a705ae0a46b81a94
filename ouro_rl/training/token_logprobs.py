"""The trainer's reading of the head: log-prob of the recorded token and entropy, never a [tokens, vocabulary] tensor for all.

The rows that carry loss go through head and distribution in chunks; backward computes a chunk's logits again. What is alive at a time is
a few tensors of one chunk. The head is the workers' own (`OuroForCausalLM.row_logits`), and no row depends on its company: each comes
out as theirs did, bit for bit.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from ouro_rl.core.sampling_params import TokenFilters
from ouro_rl.model.modeling_ouro import OuroForCausalLM
from ouro_rl.policy.token_distribution import Recorded, chosen_logprobs, entropy, token_distribution

CHUNK_BYTES = {"cpu": 2**26, "cuda": 2**28}
"""Of one chunk's logits in fp32. A chunk costs one more reading and writing of the head's gradient, so a GPU gets larger ones."""
ROW_STEP = 64
"""A chunk has a multiple of this many rows: products in tiles of any height up to it fill no rows but the last chunk's."""


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

    def __call__(self, model: OuroForCausalLM, states: Tensor) -> tuple[Tensor, Tensor]:
        """States [n, hidden] -> log-probs of the recorded tokens [n], and entropies in nats [n] without gradient; fp32."""
        rows = self.chunk_rows or chunk_rows(model.config.vocab_size, states.device)
        if len(states) <= rows:
            return self._read(model, states, 0, len(states))
        parts = [
            checkpoint(
                self._read, model, states[start : start + rows], start, min(start + rows, len(states)),
                use_reentrant=False, preserve_rng_state=False,
            )
            for start in range(0, len(states), rows)
        ]  # fmt: skip
        log_probs, entropies = zip(*parts, strict=True)
        return torch.cat(log_probs), torch.cat(entropies)

    def _read(self, model: OuroForCausalLM, states: Tensor, start: int, stop: int) -> tuple[Tensor, Tensor]:
        """Rows `start` to `stop` of the batch, whose `states` [rows, hidden] these are."""
        prefixes = None
        if self.filters.logit_processors:
            assert self.completions is not None
            prefixes = self.completions.prefixes(start, stop)
        token_ids = self.recorded.token_ids[start:stop]
        here = Recorded(token_ids=token_ids, support_sizes=self.recorded.support_sizes[start:stop])
        logits = model.row_logits(states)
        log_probs, _ = token_distribution(logits, self.temperature, self.filters, prefixes=prefixes, recorded=here)
        return chosen_logprobs(log_probs, token_ids), entropy(log_probs.detach())


def chunk_rows(vocabulary: int, device: torch.device) -> int:
    """Rows of a chunk: as many as `CHUNK_BYTES` allow, in steps, at least one step."""
    steps = CHUNK_BYTES.get(device.type, CHUNK_BYTES["cpu"]) // (4 * vocabulary * ROW_STEP)
    return max(1, steps) * ROW_STEP


def token_reader(batch: dict[str, Tensor], temperature: float, filters: TokenFilters) -> TokenReader:
    """The reader of a collated batch (`ouro_rl.training.batch.collate`), under the policy that its rollouts were sampled with."""
    mask = batch["completion_mask"].bool()
    completions = None
    if filters.logit_processors:
        completions = Completions(
            prompts=_unpadded(batch["prompt_ids"], batch["prompt_mask"].bool()),
            completions=_unpadded(batch["completion_ids"], mask),
        )
    recorded = Recorded(token_ids=batch["completion_ids"][mask], support_sizes=batch["support_sizes"][mask])
    return TokenReader(recorded=recorded, temperature=temperature, filters=filters, completions=completions)


def _unpadded(ids: Tensor, mask: Tensor) -> list[list[int]]:
    return [row[kept].tolist() for row, kept in zip(ids, mask, strict=True)]
