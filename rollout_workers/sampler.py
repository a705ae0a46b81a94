"""What a row does after its pass: go deeper, or leave, get a token and come back at loop 1.

All of it is in tensors by slot, one entry a live sample; a token's chance depends on (seed, index in the completion) alone.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ouro_rl.exit_gate import exit_quantiles, exits, log_exit, log_stay
from ouro_rl.model import OuroForCausalLM
from ouro_rl.model.layers import in_tiles
from ouro_rl.policy import DEPTH_STREAM, TOKEN_STREAM, sample_tokens, token_log_softmax, uniforms
from ouro_rl.types import NO_DEPTH, SamplingParams


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
        self.token_draws = torch.zeros(slots, dtype=torch.float64, device=device)
        """The uniform number that picks the token in hand, as the exit quantile picks its depth."""
        self.streams = torch.tensor([[TOKEN_STREAM], [DEPTH_STREAM]], device=device)
        record = (slots, params.max_new_tokens)
        self.tokens, self.depths = integers(*record), integers(*record, fill=NO_DEPTH)
        self.token_logprobs, self.depth_logprobs = floats(*record), floats(*record)

    def start(self, slots: Sequence[int], seeds: Sequence[int], prompts: Sequence[Sequence[int]]) -> None:
        """Begin samples: the last prompt token is the first whose depth the gate decides."""
        device = self.seeds.device
        rows = torch.tensor(slots, device=device)
        self.seeds[rows] = torch.tensor(seeds, dtype=torch.int64, device=device)
        self.positions[rows] = torch.tensor([len(prompt) - 1 for prompt in prompts], device=device)
        last = torch.tensor([prompt[-1] for prompt in prompts], device=device)
        self._next_token(rows, last, torch.zeros_like(rows))

    def step(self, rows: Tensor, states: Tensor) -> tuple[int, list[int]]:
        """Take the normed states [n, hidden] of the samples in slots `rows` [n] after a loop.

        Returns the number of tokens made, and the slots whose completion ended."""
        loops, before = self.loops.index_select(0, rows), self.log_survival.index_select(0, rows)
        stay, leave = self._gate(states)
        survival = before + stay
        quantiles = self.log_quantiles.index_select(0, rows)
        leaving = exits(self.params.exit_rule, survival, quantiles, loops, self.max_loops)
        self.states.index_copy_(0, rows, states)
        self.log_survival.index_copy_(0, rows, survival)
        self.loops.index_copy_(0, rows, loops + 1)
        index = leaving.nonzero().squeeze(1)
        if len(index) == 0:
            return 0, []
        rows, loops, before, leave = (part.index_select(0, index) for part in (rows, loops, before, leave))
        lengths = self.lengths.index_select(0, rows)
        places = rows * self.params.max_new_tokens + lengths
        # The last gate is never used: what is left of the survival is the chance of the last loop.
        depth_logprobs = before + leave * (loops < self.max_loops)
        tokens, token_logprobs = self._draw_tokens(rows, states.index_select(0, index))
        for record, values in (
            (self.depths, loops),
            (self.depth_logprobs, depth_logprobs),
            (self.tokens, tokens),
            (self.token_logprobs, token_logprobs),
        ):
            record.view(-1).index_copy_(0, places, values)
        lengths += 1
        ended = (lengths == self.params.max_new_tokens) | torch.isin(tokens, self.stop_ids)
        self.positions.index_add_(0, rows, torch.ones_like(rows))
        self._next_token(rows, tokens, lengths)
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

    def _gate(self, states: Tensor) -> tuple[Tensor, Tensor]:
        """log (1 - lambda) and log lambda after this loop, [n] each."""
        gate_logits = self.model.model.gate_logits(in_tiles(states))
        return log_stay(gate_logits)[: len(states)], log_exit(gate_logits)[: len(states)]

    def _draw_tokens(self, rows: Tensor, states: Tensor) -> tuple[Tensor, Tensor]:
        """Head, distribution and draw for the rows that leave: token ids and their log-probs, [n] each."""
        logits = self.model.lm_head(in_tiles(states))[: len(rows)]
        log_probs = token_log_softmax(logits, self.params.temperature)
        if self.params.temperature == 0:
            tokens = log_probs.argmax(-1)
        else:
            tokens = sample_tokens(log_probs, self.token_draws.index_select(0, rows))
        return tokens, log_probs.gather(1, tokens.unsqueeze(1)).squeeze(1)

    def _next_token(self, rows: Tensor, tokens: Tensor, lengths: Tensor) -> None:
        """Put `tokens` in as the input of loop 1, with fresh draws for the depth and the token that follow."""
        draws = uniforms(self.seeds.index_select(0, rows), lengths, self.streams)
        self.token_draws.index_copy_(0, rows, draws[0])
        self.log_quantiles.index_copy_(0, rows, exit_quantiles(self.params.exit_rule, draws[1]))
        self.states.index_copy_(0, rows, self.model.model.embed_tokens(tokens))
        self.lengths.index_copy_(0, rows, lengths)
        self.loops.index_fill_(0, rows, 1)
        self.log_survival.index_fill_(0, rows, 0.0)
