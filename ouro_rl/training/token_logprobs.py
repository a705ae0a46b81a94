"""Log-probs and entropies of the recorded tokens, in chunks: never a [tokens, vocabulary] tensor for the whole batch.

Completion rows go through head and distribution in chunks, and backward recomputes a chunk's logits, so only a few
tensors of one chunk are alive at a time. The head is the one that the workers use (`OuroForCausalLM.row_logits`) and is
batch-invariant: the results are bitwise equal to the workers'.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from ouro_rl.core.kv_rule import KVRule
from ouro_rl.core.sampling_params import TokenFilters
from ouro_rl.model.modeling_ouro import OuroCausalLMOutput, OuroForCausalLM
from ouro_rl.policy.token_distribution import Recorded, chosen_logprobs, entropy, token_distribution
from ouro_rl.training.batch import Batch, ReplayInputs

CHUNK_BYTES = {"cpu": 2**26, "cuda": 2**28}
"""Size of one chunk's fp32 logits. Every chunk reads and writes the head's gradient once, so GPUs get larger chunks."""
ROW_STEP = 64
"""Chunk sizes are multiples of this many rows, so that products in tiles of this height pad only the last chunk."""


@dataclass(frozen=True, kw_only=True)
class Completions:
    """The tokens of n sequences, for logit processors; prefixes are built on demand."""

    prompts: Sequence[Sequence[int]]
    completions: Sequence[Sequence[int]]

    def prefixes(self, start: int, stop: int) -> list[list[int]]:
        """The prefixes of completion tokens `start` to `stop`, counted through all sequences."""
        found, first = [], 0
        for prompt, completion in zip(self.prompts, self.completions, strict=True):
            for place in range(max(start - first, 0), min(stop - first, len(completion))):
                found.append([*prompt, *completion[:place]])
            first += len(completion)
        return found


@dataclass(frozen=True, kw_only=True)
class TokenReader:
    """A `read_head` for `OuroForCausalLM.forward` that reads the recorded tokens of a batch, sequence by sequence."""

    recorded: Recorded
    temperature: float
    filters: TokenFilters = TokenFilters()
    completions: Completions | None = None
    """Only logit processors need it."""
    chunk_rows: int | None = None
    """None: as many as `CHUNK_BYTES` allow."""

    def __call__(self, model: OuroForCausalLM, states: Tensor) -> tuple[Tensor, Tensor]:
        """States [n, hidden] -> fp32 log-probs of the recorded tokens [n], and entropies in nats [n], detached."""
        rows = self.chunk_rows or chunk_rows(model.config.vocab_size, states.device)
        if len(states) <= rows:
            return self._read(model, states, 0, len(states))
        parts = [
            checkpoint(
                self._read,
                model,
                states[start : start + rows],
                start,
                min(start + rows, len(states)),
                use_reentrant=False,
                preserve_rng_state=False,
            )
            for start in range(0, len(states), rows)
        ]
        log_probs, entropies = zip(*parts, strict=True)
        return torch.cat(log_probs), torch.cat(entropies)

    def _read(self, model: OuroForCausalLM, states: Tensor, start: int, stop: int) -> tuple[Tensor, Tensor]:
        """`__call__` on rows `start` to `stop` of the batch; `states` [rows, hidden] are theirs."""
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
    """Rows per chunk: as many as `CHUNK_BYTES` allow, in multiples of `ROW_STEP`, at least one."""
    steps = CHUNK_BYTES.get(device.type, CHUNK_BYTES["cpu"]) // (4 * vocabulary * ROW_STEP)
    return max(1, steps) * ROW_STEP


def token_reader(batch: Batch, temperature: float, filters: TokenFilters) -> TokenReader:
    """The reader for a collated batch (`ouro_rl.training.batch.collate`), as its rollouts were sampled."""
    mask = batch["completion_mask"].bool()
    completions = None
    if filters.logit_processors:
        completions = Completions(
            prompts=_unpadded(batch["prompt_ids"], batch["prompt_mask"].bool()),
            completions=_unpadded(batch["completion_ids"], mask),
        )
    recorded = Recorded(token_ids=batch["completion_ids"][mask], support_sizes=batch["support_sizes"][mask])
    return TokenReader(recorded=recorded, temperature=temperature, filters=filters, completions=completions)


def replay_batch(
    model: Callable[..., OuroCausalLMOutput],
    batch: Batch,
    replayed: ReplayInputs,
    *,
    max_loops: int,
    kv_rule: KVRule,
    temperature: float,
    filters: TokenFilters,
) -> tuple[Tensor, Tensor, Tensor]:
    """Replay a collated batch at its recorded depths; `replayed` is what `replay_inputs` makes of it.

    Returns log-probs [n] of the n completion tokens, entropies [n] of their distributions, and gate logits
    [max_loops, n] of the positions that predict them."""
    output = model(
        input_ids=replayed.input_ids,
        depths=replayed.depths,
        owners=replayed.owners,
        logits_to_keep=replayed.predicting,
        use_cache=False,
        num_loops=max_loops,
        kv_rule=kv_rule,
        read_head=token_reader(batch, temperature, filters),
    )
    logprobs, entropies = output.reading
    assert output.gate_logits is not None  # a replay always has them
    return logprobs, entropies, output.gate_logits[:, replayed.predicting]


def _unpadded(ids: Tensor, mask: Tensor) -> list[list[int]]:
    return [row[kept].tolist() for row, kept in zip(ids, mask, strict=True)]
