"""The token of an exiting row: LM head, distribution, draw, and whether the token ends its sample.

All state is by slot, as in the sampler; a draw depends only on the row's logits, its prefix and its uniform number.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ouro_rl.core.sampling_params import SamplingParams
from ouro_rl.model.modeling_ouro import OuroForCausalLM
from ouro_rl.model.policy.token_distribution import chosen_logprobs, sample_tokens, token_distribution
from rollout_workers.engine.sampling.stop_strings import StopStringMatcher
from rollout_workers.engine.sampling.thinking_budget import ThinkingCloser


class TokenDraw:
    """Draws tokens by `params`, and keeps the per-slot state that only drawing needs."""

    def __init__(self, model: OuroForCausalLM, params: SamplingParams, slots: int):
        weight = model.lm_head.weight
        self.model, self.params, device = model, params, weight.device
        self.stop_ids = torch.tensor(params.stop_token_ids, dtype=torch.int64, device=device)
        stop = params.stop_strings
        self.matcher = None if stop is None else StopStringMatcher(stop, slots, len(weight), device)
        budget = params.thinking_budget
        self.thinking = None if budget is None else ThinkingCloser(budget, slots, len(weight), device)
        self.support_sizes: Tensor | None = None
        """int64 [slots, tokens]: how many tokens the filters kept."""
        if params.filters.restrict:
            self.support_sizes = torch.zeros(slots, params.max_new_tokens, dtype=torch.int64, device=device)
        self.prefixes: dict[int, list[int]] | None = {} if params.filters.logit_processors else None
        """Prompt and completion so far, by slot."""

    def start(self, slots: Sequence[int], prompts: Sequence[Sequence[int]]) -> None:
        """Begin samples."""
        rows = torch.tensor(slots, dtype=torch.int64, device=self.stop_ids.device)
        for part in (self.matcher, self.thinking):
            if part is not None:
                part.start(rows)
        if self.prefixes is not None:
            self.prefixes.update((slot, list(prompt)) for slot, prompt in zip(slots, prompts, strict=True))

    def resume(self, slot: int, completion: Sequence[int]) -> None:
        """After `start`, continue after these tokens."""
        if self.matcher is not None:
            rows = torch.tensor([slot], device=self.stop_ids.device)
            for token in completion:
                self.matcher.advance(rows, torch.tensor([token], device=rows.device))
        if self.thinking is not None:
            self.thinking.resume(slot, completion)
        if self.prefixes is not None:
            self.prefixes[slot] += completion

    def draw(self, rows: Tensor, states: Tensor, uniforms: Tensor, indices: Tensor) -> tuple[Tensor, Tensor]:
        """Draw one token for each of the slots `rows` [n] at `states` [n, hidden], using `uniforms` [n]; `indices` [n]
        count the tokens before it. Returns token ids and their log-probs, [n] each."""
        filters, temperature = self.params.filters, self.params.temperature
        prefixes = None if self.prefixes is None else [self.prefixes[slot] for slot in rows.tolist()]
        logits = self.model.row_logits(states)
        log_probs, sizes = token_distribution(logits, temperature, filters, prefixes=prefixes)
        tokens = log_probs.argmax(-1) if temperature == 0 else sample_tokens(log_probs, uniforms)
        logprobs = chosen_logprobs(log_probs, tokens)
        if self.thinking is not None:
            forced, tokens = self.thinking.force(rows, indices, tokens)
            logprobs = logprobs.masked_fill(forced, 0.0)
        if sizes is not None:
            assert self.support_sizes is not None, "where filters restrict tokens there is a record of it"
            self.support_sizes.view(-1).index_copy_(0, rows * self.params.max_new_tokens + indices, sizes)
        if prefixes is not None:
            for prefix, token in zip(prefixes, tokens.tolist(), strict=True):
                prefix.append(token)
        return tokens, logprobs

    def ends(self, rows: Tensor, tokens: Tensor) -> Tensor:
        """Which of the tokens just drawn for slots `rows` [n] end their sample: bool [n]."""
        ended = (tokens.unsqueeze(1) == self.stop_ids).any(1)
        return ended if self.matcher is None else ended | self.matcher.advance(rows, tokens)

    def ended_by(self, slots: Sequence[int]) -> list[str | None]:
        """The stop string that ended each sample, or None."""
        return [None] * len(slots) if self.matcher is None else self.matcher.ended_by(slots)
