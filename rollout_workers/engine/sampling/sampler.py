"""What a row does after its pass: go one loop deeper, or exit, get a token and continue at loop 1.

All state is in tensors by slot, one entry per live sample; random numbers depend only on (seed, index in the
completion).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor

from ouro_rl.core.errors import RunError
from ouro_rl.core.rollout import FinishReason
from ouro_rl.core.sampling_params import NO_DEPTH, SamplingParams
from ouro_rl.model.layers import in_tiles
from ouro_rl.model.modeling_ouro import OuroForCausalLM
from ouro_rl.model.policy.counter_rng import DEPTH_STREAM, TOKEN_STREAM, uniforms
from ouro_rl.model.policy.exit_gate import (
    decides,
    exit_quantiles,
    exits,
    log_exit,
    log_stay,
    policy_logits,
    temperature_tensor,
)
from ouro_rl.model.policy.read_out import reads_out
from rollout_workers.engine.sampling.completion import Completion, CompletionTensors
from rollout_workers.engine.sampling.early_stop import EarlyStopper
from rollout_workers.engine.sampling.read_out import ReadOut
from rollout_workers.engine.sampling.token_sampler import TokenDraw

Choose = Callable[..., tuple[Tensor, ...]]
"""(mask bool [n], slots [n], values [n, ...]) -> the slots where the mask holds, and their values: `compact` or
`mask_out`."""


def compact(mask: Tensor, rows: Tensor, *values: Tensor) -> tuple[Tensor, ...]:
    """The rows where `mask` holds. Synchronizes with the device to learn how many there are."""
    index = mask.nonzero().squeeze(1)
    return tuple(part.index_select(0, index) for part in (rows, *values))


def mask_out(dummy: Tensor, mask: Tensor, rows: Tensor, *values: Tensor) -> tuple[Tensor, ...]:
    """All rows; those where `mask` does not hold write to the slot `dummy` [1]. Shapes do not depend on the mask's
    values."""
    return torch.where(mask, rows, dummy), *values


class Sampler:
    """State and record of the live samples of one `generate` call; [slots, ...] tensors."""

    def __init__(self, model: OuroForCausalLM, params: SamplingParams, slots: int):
        self.model, self.params = model, params
        policy = params.depth_policy
        self.min_depth, self.max_loops = policy.min_depth, policy.max_loops(model.config.total_ut_steps)
        self.runs_all_loops = policy.kv_rule.runs_all_loops
        self.gate_temperature = temperature_tensor(policy.gate_temperature, model.model.embed_tokens.weight.device)
        """May change between calls that share this sampler."""
        self.early_stop = None if params.early_stop is None else EarlyStopper(params.early_stop)
        self.given_up: set[int] = set()
        """Slots of samples that the early stop ended."""
        embeddings = model.model.embed_tokens.weight
        self.ops, _ = model.model.row_ops(embeddings.dtype)
        device = embeddings.device

        def integers() -> Tensor:
            return torch.zeros(slots, dtype=torch.int64, device=device)

        def floats() -> Tensor:
            return torch.zeros(slots, dtype=torch.float32, device=device)

        self.token_draw = TokenDraw(model, params, slots)
        self.read_out = ReadOut(model, params.exit_rule, slots) if reads_out(params.exit_rule) else None
        self.states = torch.zeros(slots, embeddings.shape[1], dtype=embeddings.dtype, device=device)
        """Input of the next pass: the embedding of the last token, or the state after the last loop."""
        self.positions, self.loops = integers(), integers()
        """Of the next pass; loops are 1-based."""
        self.undecided = torch.ones(slots, dtype=torch.bool, device=device)
        self.exit_states = torch.zeros_like(self.states) if self.runs_all_loops else None
        """Where tokens run all loops (the rule `full`): the states at the sampled depths."""
        self.seeds, self.lengths = integers(), integers()
        """Seed of the sample, and its number of tokens so far."""
        self.fixed_depths = integers()
        """Depth of all tokens of the sample; `NO_DEPTH` where the exit rule chooses."""
        self.log_survival, self.log_quantiles = floats(), floats()
        self.token_draws = torch.zeros(slots, dtype=torch.float64, device=device)
        """The uniform number that picks the next token, as the exit quantile picks its depth."""
        self.streams = torch.tensor([[TOKEN_STREAM], [DEPTH_STREAM]], device=device)
        self.completions = CompletionTensors.empty(
            slots, params.max_new_tokens, self.max_loops, device, support_sizes=self.token_draw.support_sizes
        )

    def start(
        self,
        slots: Sequence[int],
        seeds: Sequence[int],
        prompts: Sequence[Sequence[int]],
        fixed_depths: Sequence[int | None],
    ) -> None:
        """Begin samples: the last prompt token is the first whose depth the gate decides, or `fixed_depths` does."""
        device = self.seeds.device
        rows = torch.tensor(slots, device=device)
        self.seeds[rows] = torch.tensor(seeds, dtype=torch.int64, device=device)
        self.fixed_depths[rows] = torch.tensor([depth or NO_DEPTH for depth in fixed_depths], device=device)
        self.positions[rows] = torch.tensor([len(prompt) - 1 for prompt in prompts], device=device)
        self.token_draw.start(slots, prompts)
        last = torch.tensor([prompt[-1] for prompt in prompts], device=device)
        self._next_token(rows, last, torch.zeros_like(rows))

    def suspend(self, slot: int) -> Completion:
        """A completion so far, finished tokens only: the input of `resume`."""
        return self._read([slot])[0]

    def resume(self, slot: int, completion: Completion) -> None:
        """After `start`, continue where `suspend` stopped: at loop 1 of the last token. Random numbers depend only on
        seed and index, so they are the same."""
        self.completions.write(slot, completion)
        length = len(completion.token_ids)
        self.positions[slot] += length
        self.token_draw.resume(slot, completion.token_ids)
        rows = torch.tensor([slot], device=self.positions.device)
        self._next_token(rows, self.completions.token_ids[rows, length - 1], torch.full_like(rows, length))

    def embed_again(self, slots: Sequence[int], prompts: Sequence[Sequence[int]]) -> list[int]:
        """After the weights have changed, at loop 1: the input of the next pass, the last token's embedding, once more.
        Returns the numbers of tokens so far."""
        rows = torch.tensor(slots, dtype=torch.int64, device=self.lengths.device)
        lengths = self.lengths.index_select(0, rows)
        ends = torch.tensor([prompt[-1] for prompt in prompts], dtype=torch.int64, device=rows.device)
        last = self.completions.token_ids[rows, (lengths - 1).clamp(min=0)]
        tokens = torch.where(lengths == 0, ends, last)
        self.states.index_copy_(0, rows, self.model.model.embed_tokens(tokens))
        return lengths.tolist()

    def step(self, rows: Tensor, states: Tensor) -> tuple[int, list[int]]:
        """Take the normalized states [n, hidden] of the samples in slots `rows` [n] after a loop.

        Returns the number of tokens made, and the slots whose completion ended."""
        rows, lengths, ended = self._advance(rows, states, compact)
        if len(rows) == 0:
            return 0, []
        slots = rows[ended].tolist()
        return len(rows), slots if self.early_stop is None else slots + self._hopeless(rows[~ended], lengths[~ended])

    def static_step(self, rows: Tensor, states: Tensor, dummy: Tensor) -> tuple[Tensor, Tensor]:
        """`step` without host synchronization, and with shapes that depend only on n: every row gets a token, but only
        exiting rows keep theirs. The others write to the slot `dummy` [1] (which may occur in `rows`, any number of
        times), which is reset at the end. Ignores early stops and logit processors.

        Returns the slots that got a token [n], `dummy` for the others, and whether that token ended the completion
        [n]."""
        rows, _, ended = self._advance(rows, states, partial(mask_out, dummy))
        self.lengths.index_fill_(0, dummy, 0)
        self.positions.index_fill_(0, dummy, 0)
        return rows, ended

    def _advance(self, rows: Tensor, states: Tensor, choose: Choose) -> tuple[Tensor, Tensor, Tensor]:
        """Returns the slots that got a token, their lengths, and whether it ended the completion: [m] each."""
        loops, before = self.loops.index_select(0, rows), self.log_survival.index_select(0, rows)
        stay, leave = self._gate(states)
        asked = decides(loops, self.max_loops, self.min_depth)
        survival = before + torch.where(asked, stay, 0.0)
        quantiles = self.log_quantiles.index_select(0, rows)
        leaving = exits(self.params.exit_rule, survival, quantiles, loops, self.max_loops, self.min_depth)
        if self.read_out is not None:
            leaving = leaving | (self.read_out.exits(rows, states, loops) & (loops >= self.min_depth))
        fixed = self.fixed_depths.index_select(0, rows)
        leaving = torch.where(fixed == NO_DEPTH, leaving, loops >= fixed)
        self.states.index_copy_(0, rows, states)
        self.log_survival.index_copy_(0, rows, survival)
        self.loops.index_copy_(0, rows, loops + 1)
        # Forced decisions add no log-prob: after the last loop, the remaining survival is the probability of that
        # depth.
        depth_logprobs = before + torch.where(asked, leave, 0.0)
        self._note_shares(rows, loops, depth_logprobs)
        if self.runs_all_loops:
            leaving, states = self._decide(rows, leaving, loops, depth_logprobs, states, choose)
        rows, loops, depth_logprobs, states = choose(leaving, rows, loops, depth_logprobs, states)
        lengths = self.lengths.index_select(0, rows)
        if len(rows) == 0:
            return rows, lengths, leaving[:0]
        places, record = self._places(rows), self.completions
        if not self.runs_all_loops:
            record.depths.view(-1).index_copy_(0, places, loops)
            record.depth_logprobs.view(-1).index_copy_(0, places, depth_logprobs)
        uniform = self.token_draws.index_select(0, rows)
        tokens, token_logprobs = self.token_draw.draw(rows, states, uniform, lengths)
        record.token_ids.view(-1).index_copy_(0, places, tokens)
        record.token_logprobs.view(-1).index_copy_(0, places, token_logprobs)
        lengths += 1
        ended = (lengths == self.params.max_new_tokens) | self.token_draw.ends(rows, tokens)
        self.positions.index_add_(0, rows, torch.ones_like(rows))
        self._next_token(rows, tokens, lengths)
        return rows, lengths, ended

    def _decide(
        self, rows: Tensor, leaving: Tensor, loops: Tensor, depth_logprobs: Tensor, states: Tensor, choose: Choose
    ) -> tuple[Tensor, Tensor]:
        """Where every token runs all loops: record the depths decided in this pass and keep their states. Returns which
        rows have run all loops (bool [n]), and every row's state at its depth [n, hidden]."""
        assert self.exit_states is not None, "made where every token runs all loops"
        now = leaving & self.undecided.index_select(0, rows)
        deciding, depths, logprobs, chosen = choose(now, rows, loops, depth_logprobs, states)
        places = self._places(deciding)
        self.completions.depths.view(-1).index_copy_(0, places, depths)
        self.completions.depth_logprobs.view(-1).index_copy_(0, places, logprobs)
        self.exit_states.index_copy_(0, deciding, chosen)
        self.undecided.index_fill_(0, deciding, False)
        exit_states = self.exit_states.index_select(0, rows)
        if self.params.exit_rule.kind == "simulated":
            by_gate = self.fixed_depths.index_select(0, rows) == NO_DEPTH
            exit_states = torch.where(by_gate.unsqueeze(1), states, exit_states)
        return loops == self.max_loops, exit_states

    def _note_shares(self, rows: Tensor, loops: Tensor, depth_logprobs: Tensor) -> None:
        """Record how likely the gate was to leave after these loops, [n] each. In fp64, so that no share depends on how
        many rows there are, as the last bits of torch's exp do."""
        shares = (255 * depth_logprobs.double().exp()).round().to(torch.uint8)
        shares = torch.where(loops >= self.min_depth, shares, 0)
        self.completions.exit_shares.view(-1).index_copy_(0, self._places(rows) * self.max_loops + loops - 1, shares)

    def _places(self, rows: Tensor) -> Tensor:
        """Flat index of each row's next token in the record: [n] -> [n]."""
        return rows * self.params.max_new_tokens + self.lengths.index_select(0, rows)

    def _hopeless(self, rows: Tensor, lengths: Tensor) -> list[int]:
        """Slots among `rows` that the early stop ends at their new lengths."""
        assert self.early_stop is not None
        due, record = lengths % self.early_stop.rule.every == 0, self.completions
        slots = [
            slot
            for slot, length in zip(rows[due].tolist(), lengths[due].tolist(), strict=True)
            if self.early_stop.hopeless(record.token_ids[slot, :length], record.token_logprobs[slot, :length])
        ]
        self.given_up.update(slots)
        return slots

    def collect(self, slots: Sequence[int]) -> list[Completion]:
        """The completions of ended samples. Raises `RunError` when a log-prob is not finite."""
        texts = self.token_draw.ended_by(slots)
        ended = [self._ended(*each) for each in zip(slots, self._read(slots), texts, strict=True)]
        self.given_up.difference_update(slots)
        return ended

    def _read(self, slots: Sequence[int]) -> list[Completion]:
        rows = torch.tensor(slots, device=self.lengths.device)
        lengths = self.lengths[rows].tolist()
        completions, thinking = self.completions.read(rows, lengths), self.token_draw.thinking
        if thinking is None:
            return completions
        spans = thinking.spans(slots, lengths)
        return [replace(each, forced=span) for each, span in zip(completions, spans, strict=True)]

    def _ended(self, slot: int, completion: Completion, text: str | None) -> Completion:
        """The completion with its finish reason; `text` is the stop string that ended it, if any."""
        if not all(map(math.isfinite, completion.token_logprobs)):
            raise RunError(
                "a rollout worker's log-probs are not finite: the weights have diverged (lower the learning rates)"
            )
        by_token = completion.token_ids[-1] in self.params.stop_token_ids
        reason: FinishReason = "stop" if by_token or text else "abort" if slot in self.given_up else "length"
        return replace(completion, finish_reason=reason, stop_string=None if by_token else text)

    def _gate(self, states: Tensor) -> tuple[Tensor, Tensor]:
        """log (1 - lambda) and log lambda after this loop, [n] each."""
        gate_logits = self.model.model.gate_logits(in_tiles(states, self.ops), self.ops)
        gate_logits = policy_logits(gate_logits, self.params.depth_policy, self.gate_temperature)
        return log_stay(gate_logits)[: len(states)], log_exit(gate_logits)[: len(states)]

    def _next_token(self, rows: Tensor, tokens: Tensor, lengths: Tensor) -> None:
        """Set `tokens` as the input of loop 1, with new random numbers for the next depth and token."""
        draws = uniforms(self.seeds.index_select(0, rows), lengths, self.streams)
        self.token_draws.index_copy_(0, rows, draws[0])
        self.log_quantiles.index_copy_(0, rows, exit_quantiles(self.params.exit_rule, draws[1]))
        self.states.index_copy_(0, rows, self.model.model.embed_tokens(tokens))
        self.lengths.index_copy_(0, rows, lengths)
        self.loops.index_fill_(0, rows, 1)
        self.undecided.index_fill_(0, rows, True)
        self.log_survival.index_fill_(0, rows, 0.0)
