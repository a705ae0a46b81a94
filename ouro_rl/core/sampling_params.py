"""What a rollout is asked for: limits, token filters, exit rule, depth policy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from ouro_rl.core.kv_rule import KVRule

NO_DEPTH = 0
"""Padding for depths: never a legal depth."""


MOST_LOOPS = 64
"""A larger `max_depth` is taken for a slip."""


@dataclass(frozen=True, kw_only=True)
class ExitRule:
    """How deep a token goes: `sample` (draw from the exit distribution), `threshold` (the first loop whose cumulated
    exit probability reaches `value`: the paper's Q-exit), `fixed` (`value` loops)."""

    kind: Literal["sample", "threshold", "fixed"] = "sample"
    value: float | None = None

    def label(self) -> str:
        return self.kind if self.value is None else f"{self.kind} {self.value:g}"


@dataclass(frozen=True, kw_only=True)
class DepthPolicy:
    """What a depth may be and what it means for the tokens that follow. Part of the policy: rollouts carry it, and are replayed
    under the same one."""

    kv_rule: KVRule = KVRule.LAST_EXITED
    min_depth: int = 1
    """The gate is not asked before this loop: a token stays, with log-probability 0."""
    gate_temperature: float = 1.0
    """The gate's logits are divided by it: above 1 depths are drawn from a flatter distribution (see `exit_gate.tempered`)."""
    max_depth: int | None = None
    """Every token leaves here, with log-probability 0; prompts run so many loops. None: the loops that the model was trained with
    (`total_ut_steps`); more are allowed."""

    def max_loops(self, trained: int) -> int:
        return trained if self.max_depth is None else self.max_depth


@dataclass(frozen=True, kw_only=True)
class EarlyStop:
    """When to give a sample up. Looked at each time the completion has a multiple of `every` tokens, and depends on the completion
    and its log-probs alone. Any of the tests that are set is enough.

    To the trainer it is a completion like those that reach the longest length: graders see what there is of it (a sample without an
    answer earns what that earns), and every token that it has is replayed and trained on. Only its length is not what it would have
    been; whoever rewards length should know."""

    every: int = 32
    repeat_window: int | None = None
    """The last so many tokens repeat one block of tokens, twice or more."""
    min_mean_logprob: float | None = None
    """The mean token log-prob of the completion, in nats, is below this."""
    hook: str | None = None
    """A function of the user, by name: called with (completion_ids, token_logprobs), tuples, it gives the sample up where it is true."""


@dataclass(frozen=True, kw_only=True)
class TokenFilters:
    """What is kept of the token distribution, beside its temperature. Part of the policy: rollouts carry it, and are replayed under
    the same one (`ouro_rl.policy.token_distribution`). Order: processors, temperature, top-k, top-p, min-p."""

    top_k: int = 0
    """So many of the most likely tokens; 0: all."""
    top_p: float = 1.0
    """The most likely tokens that together have this probability; 1: all."""
    min_p: float = 0.0
    """Tokens with at least this share of the most likely one's probability; 0: all."""
    logit_processors: tuple[str, ...] = ()
    """Functions of the user by name, first to last; see `ouro_rl.policy.logit_processors`."""

    @property
    def restrict(self) -> bool:
        """Whether some tokens may be left out by their rank or probability."""
        return self.top_k > 0 or self.top_p < 1 or self.min_p > 0


@dataclass(frozen=True, kw_only=True)
class StopStrings:
    """Texts that end a completion, and what every token writes: a worker has no tokenizer."""

    strings: tuple[str, ...]
    pieces: tuple[bytes, ...]
    """UTF-8 bytes of each token, by id; see `ouro_rl.model.token_bytes`."""


@dataclass(frozen=True, kw_only=True)
class SamplingParams:
    """What is asked of the engine for every completion of a call."""

    max_new_tokens: int
    temperature: float = 1.0
    """0 = greedy; its recorded log-probs are those of temperature 1."""
    filters: TokenFilters = TokenFilters()
    exit_rule: ExitRule = ExitRule()
    stop_token_ids: tuple[int, ...] = ()
    """A completion ends with the first of these (kept as its last token)."""
    stop_strings: StopStrings | None = None
    """A completion ends with the token that completes one of these, wherever in that token the string ends."""
    depth_policy: DepthPolicy = DepthPolicy()
    early_stop: EarlyStop | None = None
