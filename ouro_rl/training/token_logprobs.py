"""Log-probs and entropies of the recorded tokens, in chunks: never a [tokens, vocabulary] tensor for the whole batch.

Completion rows go through head and distribution in chunks, and backward recomputes a chunk's logits, so only a few
tensors of one chunk are alive at a time. The head is the one that the workers use (`OuroForCausalLM.row_logits`) and is
batch-invariant: the results are bitwise equal to the workers'.
"""

from __future__ import annotations

import bisect
import functools
import itertools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from ouro_rl.core.sampling_params import DepthPolicy, TokenFilters
from ouro_rl.model.modeling_ouro import OuroForCausalLM
from ouro_rl.model.outputs import OuroCausalLMOutput
from ouro_rl.model.policy.exit_gate import policy_logits
from ouro_rl.model.policy.token_distribution import Recorded, chosen_logprobs, entropy, token_distribution
from ouro_rl.model.replay_probes import Probed
from ouro_rl.training.batch import Batch, ReplayInputs, probed_tokens
from ouro_rl.training.objective.records import Probes

CHUNK_BYTES = {"cpu": 2**26, "cuda": 2**28}
"""Size of one chunk's fp32 logits. Every chunk reads and writes the head's gradient once, so GPUs get larger chunks."""
ROW_STEP = 64
"""Chunk sizes are multiples of this many rows, so that products in tiles of this height pad only the last chunk."""


@dataclass(frozen=True, kw_only=True)
class Completions:
    """The tokens of n sequences, for logit processors; prefixes are built on demand."""

    prompts: Sequence[Sequence[int]]
    completions: Sequence[Sequence[int]]

    @functools.cached_property
    def ends(self) -> list[int]:
        """Completion tokens up to the end of each sequence."""
        return list(itertools.accumulate(map(len, self.completions)))

    def prefixes(self, numbers: Iterable[int]) -> list[list[int]]:
        """The prefixes of completion tokens, each by its number, counted through all sequences."""
        found = []
        for number in numbers:
            row = bisect.bisect_right(self.ends, number)
            place = number - (self.ends[row - 1] if row else 0)
            found.append([*self.prompts[row], *self.completions[row][:place]])
        return found


@dataclass(frozen=True, kw_only=True)
class TokenReader:
    """Reads the recorded tokens of a batch: by default all n, sequence by sequence, at their own depths."""

    recorded: Recorded
    temperature: float
    filters: TokenFilters = TokenFilters()
    completions: Completions | None = None
    """Only logit processors need it."""
    numbers: Tensor | None = None
    """int64 [rows]: the tokens that the rows predict, at other depths than their own: the filters choose anew."""
    chunk_rows: int | None = None
    """None: as many as `CHUNK_BYTES` allow."""

    def __call__(self, model: OuroForCausalLM, states: Tensor) -> tuple[Tensor, Tensor]:
        """States [rows, hidden] -> fp32 log-probs of the recorded tokens [rows], and entropies in nats, detached.

        A token that the filters drop at another depth than its own has log-prob -inf there."""
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
        numbers = torch.arange(start, stop) if self.numbers is None else self.numbers[start:stop]
        prefixes = None
        if self.filters.logit_processors:
            assert self.completions is not None
            prefixes = self.completions.prefixes(numbers.tolist())
        numbers = numbers.to(states.device)
        token_ids = self.recorded.token_ids[numbers]
        here = None
        if self.numbers is None:
            here = Recorded(token_ids=token_ids, support_sizes=self.recorded.support_sizes[numbers])
        logits = model.row_logits(states)
        log_probs, _ = token_distribution(logits, self.temperature, self.filters, prefixes=prefixes, recorded=here)
        return chosen_logprobs(log_probs, token_ids), entropy(log_probs.detach())


@dataclass(frozen=True, kw_only=True)
class Reading:
    """What a replay says of a batch of n completion tokens."""

    logprobs: Tensor
    """fp32 [n]: of the recorded tokens at their depths."""
    entropies: Tensor
    """fp32 [n], in nats, detached."""
    probes: Probes | None = None
    """Of the tokens that were probed, if any were."""


@dataclass(frozen=True, kw_only=True)
class HeadReader:
    """A `read_head` for `OuroForCausalLM.forward`: the recorded tokens at their depths, and at the probed loops."""

    tokens: TokenReader
    depths: Tensor
    """int64 [n]."""
    probed: Tensor
    """int64 [k]: the tokens that are probed, in order."""
    depth_policy: DepthPolicy = DepthPolicy()

    def __call__(self, model: OuroForCausalLM, states: Tensor, probed: Probed | None) -> Reading:
        """States [n, hidden] at the tokens' depths, and those of all loops of the k probed tokens."""
        logprobs, entropies = self.tokens(model, states)
        if probed is None:
            return Reading(logprobs=logprobs, entropies=entropies)
        loops = torch.arange(1, len(probed.states) + 1, device=states.device).unsqueeze(1)
        others = (loops != self.depths[self.probed]).nonzero(as_tuple=True)
        reader = replace(self.tokens, numbers=self.probed[others[1]])
        found, _ = reader(model, probed.states[others])
        known = logprobs[self.probed].expand(len(loops), -1)  # at a token's own depth nothing is read twice
        probes = Probes(
            tokens=self.probed,
            token_logprobs=known.index_put(others, found),
            gate_logits=policy_logits(probed.gate_logits, self.depth_policy),
            detached_gate_logits=policy_logits(model.model.gate_logits(probed.states.detach()), self.depth_policy),
        )
        return Reading(logprobs=logprobs, entropies=entropies, probes=probes)


def chunk_rows(vocabulary: int, device: torch.device) -> int:
    """Rows per chunk: as many as `CHUNK_BYTES` allow, in multiples of `ROW_STEP`, at least one."""
    steps = CHUNK_BYTES.get(device.type, CHUNK_BYTES["cpu"]) // (4 * vocabulary * ROW_STEP)
    return max(1, steps) * ROW_STEP


def head_reader(
    batch: Batch, temperature: float, filters: TokenFilters, depth_policy: DepthPolicy | None = None
) -> HeadReader:
    """The reader for a collated batch (`ouro_rl.training.batch.collate`), as its rollouts were sampled."""
    mask = batch["completion_mask"].bool()
    completions = None
    if filters.logit_processors:
        completions = Completions(
            prompts=_unpadded(batch["prompt_ids"], batch["prompt_mask"].bool()),
            completions=_unpadded(batch["completion_ids"], mask),
        )
    recorded = Recorded(token_ids=batch["completion_ids"][mask], support_sizes=batch["support_sizes"][mask])
    tokens = TokenReader(recorded=recorded, temperature=temperature, filters=filters, completions=completions)
    return HeadReader(
        tokens=tokens,
        depths=batch["depths"][mask],
        probed=probed_tokens(batch)[mask].nonzero().squeeze(1),
        depth_policy=depth_policy or DepthPolicy(),
    )


def replay_batch(
    model: Callable[..., OuroCausalLMOutput],
    batch: Batch,
    replayed: ReplayInputs,
    *,
    max_loops: int,
    depth_policy: DepthPolicy,
    temperature: float,
    filters: TokenFilters,
) -> tuple[Reading, Tensor]:
    """Replay a collated batch at its recorded depths; `replayed` is what `replay_inputs` makes of it.

    Returns what it says of the n completion tokens, and gate logits [max_loops, n] of the positions that predict them,
    as the policy uses them (`policy_logits`)."""
    output = model(
        input_ids=replayed.input_ids,
        depths=replayed.depths,
        owners=replayed.owners,
        probes=replayed.probes,
        logits_to_keep=replayed.predicting,
        use_cache=False,
        num_loops=max_loops,
        kv_rule=depth_policy.kv_rule,
        read_head=head_reader(batch, temperature, filters, depth_policy),
    )
    assert output.gate_logits is not None  # a replay always has them
    return output.reading, policy_logits(output.gate_logits[:, replayed.predicting], depth_policy)


def _unpadded(ids: Tensor, mask: Tensor) -> list[list[int]]:
    return [row[kept].tolist() for row, kept in zip(ids, mask, strict=True)]
