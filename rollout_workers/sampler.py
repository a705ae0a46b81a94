"""What a row does after its pass: go deeper, or leave, get a token and come back at loop 1.

All of it is in tensors by slot, one entry a live sample; a token's chance depends on (seed, index in the completion) alone.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from ouro_rl.exit_gate import exit_quantiles, exits, log_exit, log_stay
from ouro_rl.model import OuroForCausalLM
from ouro_rl.policy import DEPTH_STREAM, TOKEN_STREAM, sample_tokens, token_log_softmax, uniforms
from ouro_rl.types import NO_DEPTH, SamplingParams

MIN_ROWS = 16
"""Matrix products get at least this many rows: fp32 MKL runs another kernel below, and a row would depend on its company."""


class Sampler:
    """State and record of the live samples of one `generate` call; [slots, ...] tensors."""

    def __init__(self, model: OuroForCausalLM, params: SamplingParams, slots: int):
        self.model, self.params = model, params
        self.max_loops = model.config.total_ut_steps
        embeddings = model.model.embed_tokens.weight
        device = embeddings.device

        def integers(*shape: int, fill: int = 0) -> Tensor:
            return torch.full(shape, fill, dtype=torch.int64, device=device)

        def floats(*shape: int) -> Tensor:
            return torch.zeros(shape, dtype=torch.float32, device=device)

        self.stop_ids = torch.tensor(params.stop_token_ids, dtype=torch.int64, device=device)
        self.states = torch.zeros(slots, embeddings.shape[1], dtype=embeddings.dtype, device=device)
        """What the next pass takes in: the embedding of the last token, or the state after the last loop."""
        self.positions, self.loops = integers(slots), integers(slots)
        """Of the next pass; loops are 1-based."""
        self.seeds, self.lengths = integers(slots), integers(slots)
        """Seed of the sample, and tokens that it has so far."""
        self.log_survival, self.log_quantiles = floats(slots), floats(slots)
        record = (slots, params.max_new_tokens)
        self.tokens, self.depths = integers(*record), integers(*record, fill=NO_DEPTH)
        self.token_logprobs, self.depth_logprobs = floats(*record), floats(*record)

    def start(self, slots: Sequence[int], seeds: Sequence[int], prompts: Sequence[Sequence[int]]) -> None:
        """Begin samples: the last prompt token is the first whose depth the gate decides."""
        device = self.seeds.device
        rows = torch.tensor(slots, device=device)
        self.seeds[rows] = torch.tensor(seeds, dtype=torch.int64, device=device)
        self.positions[rows] = torch.tensor([len(prompt) - 1 for prompt in prompts], device=device)
        self.lengths[rows] = 0
        self._next_token(rows, torch.tensor([prompt[-1] for prompt in prompts], device=device))

    def step(self, rows: Tensor, states: Tensor) -> tuple[int, list[int]]:
        """Take the normed states [n, hidden] of the samples in slots `rows` [n] after a loop.

        Returns the number of tokens made, and the slots whose completion ended."""
        gate_logits = self.model.model.gate_logits(at_least(states, MIN_ROWS))[: len(rows)]
        loops, before = self.loops[rows], self.log_survival[rows]
        survival = before + log_stay(gate_logits)
        leaving = exits(self.params.exit_rule, survival, self.log_quantiles[rows], loops, self.max_loops)
        self.states[rows], self.log_survival[rows], self.loops[rows] = states, survival, loops + 1
        index = leaving.nonzero().squeeze(1)
        if len(index) == 0:
            return 0, []
        rows, loops, gate_logits = rows[index], loops[index], gate_logits[index]
        # The last gate is never used: what is left of the survival is the chance of the last loop.
        self.depth_logprobs[rows, self.lengths[rows]] = before[index] + log_exit(gate_logits) * (loops < self.max_loops)
        self.depths[rows, self.lengths[rows]] = loops
        tokens = self._draw_tokens(rows, states[index])
        self.lengths[rows] += 1
        ended = (self.lengths[rows] == self.params.max_new_tokens) | torch.isin(tokens, self.stop_ids)
        self.positions[rows] += 1
        self._next_token(rows, tokens)
        return len(rows), rows[ended].tolist()

    def collect(self, slots: Sequence[int]) -> list[dict[str, tuple]]:
        """The records of finished samples, as fields of a `Rollout`."""
        rows = torch.tensor(slots, device=self.lengths.device)
        lengths = self.lengths[rows].tolist()
        columns = {
            name: tensor[rows].tolist()
            for name, tensor in (
                ("completion_ids", self.tokens),
                ("token_logprobs", self.token_logprobs),
                ("depths", self.depths),
                ("depth_logprobs", self.depth_logprobs),
            )
        }
        return [
            {name: tuple(column[i][:length]) for name, column in columns.items()} for i, length in enumerate(lengths)
        ]

    def _draw_tokens(self, rows: Tensor, states: Tensor) -> Tensor:
        """Head, distribution and draw for the rows that leave; records token and log-prob. [n] -> token ids [n]."""
        logits = self.model.lm_head(at_least(states, MIN_ROWS))[: len(rows)]
        log_probs = token_log_softmax(logits, self.params.temperature)
        lengths = self.lengths[rows]
        if self.params.temperature == 0:
            tokens = log_probs.argmax(-1)
        else:
            tokens = sample_tokens(log_probs, uniforms(self.seeds[rows], lengths, TOKEN_STREAM))
        self.tokens[rows, lengths] = tokens
        self.token_logprobs[rows, lengths] = log_probs.gather(1, tokens.unsqueeze(1)).squeeze(1)
        return tokens

    def _next_token(self, rows: Tensor, tokens: Tensor) -> None:
        """Put `tokens` in as the input of loop 1, with a fresh exit quantile for the depth of what they predict."""
        self.states[rows] = self.model.model.embed_tokens(tokens)
        self.loops[rows] = 1
        self.log_survival[rows] = 0.0
        draws = uniforms(self.seeds[rows], self.lengths[rows], DEPTH_STREAM)
        self.log_quantiles[rows] = exit_quantiles(self.params.exit_rule, draws)


def at_least(rows: Tensor, count: int) -> Tensor:
    """[n, width] with zero rows put behind, where n < count."""
    return F.pad(rows, (0, 0, 0, count - len(rows))) if len(rows) < count else rows
