"""Records that travel between the packages. Frozen and keyword-only; plain Python values, so that they pickle anywhere.

Depth is always 1-based: the number of loops that ran for a token. `NO_DEPTH` marks positions that have none.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from ouro_rl.kv_rules import KVRule

NO_DEPTH = 0
"""Padding for depths: never a legal depth."""
MOST_LOOPS = 64
"""A larger `max_depth` is taken for a slip."""


@dataclass(frozen=True, kw_only=True)
class Prompt:
    """One question as tokens."""

    index: int
    """Position in its data set; part of every sample's seed."""
    token_ids: tuple[int, ...]
    """The rendered chat template, as token ids; at least one."""
    messages: list[dict[str, str]] = field(default_factory=list)
    """The conversation that was rendered, handed to reward functions as `prompts`."""
    columns: Mapping[str, Any] = field(default_factory=dict)
    """The data set's other columns (`answer`, ...), handed to reward functions as keyword arguments."""


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
    the same one (`ouro_rl.policy`). Order: processors, temperature, top-k, top-p, min-p."""

    top_k: int = 0
    """So many of the most likely tokens; 0: all."""
    top_p: float = 1.0
    """The most likely tokens that together have this probability; 1: all."""
    min_p: float = 0.0
    """Tokens with at least this share of the most likely one's probability; 0: all."""
    logit_processors: tuple[str, ...] = ()
    """Functions of the user by name, first to last; see `ouro_rl.logit_processors`."""

    @property
    def restrict(self) -> bool:
        """Whether some tokens may be left out by their rank or probability."""
        return self.top_k > 0 or self.top_p < 1 or self.min_p > 0


@dataclass(frozen=True, kw_only=True)
class StopStrings:
    """Texts that end a completion, and what every token writes: a worker has no tokenizer."""

    strings: tuple[str, ...]
    pieces: tuple[bytes, ...]
    """UTF-8 bytes of each token, by id; see `ouro_rl.token_pieces`."""


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


@dataclass(frozen=True, kw_only=True)
class RolloutRequest:
    """One group to sample: `len(seeds)` completions of one prompt."""

    prompt: Prompt
    seeds: tuple[int, ...]
    """One 63-bit seed a sample: fixes its tokens and depths, whatever its company."""


@dataclass(frozen=True, kw_only=True)
class Rollout:
    """One completion with everything that the trainer needs to replay it."""

    prompt_index: int
    sample_index: int
    """Position in the group."""
    prompt_ids: tuple[int, ...]
    completion_ids: tuple[int, ...]
    token_logprobs: tuple[float, ...]
    """log pi(y_i) at depth d_i under temperature and filters: the distribution that was drawn from. One a completion token."""
    depths: tuple[int, ...]
    """Loops run by the position that predicts `completion_ids[i]` (for i = 0 the last prompt position)."""
    depth_logprobs: tuple[float, ...]
    """log p(d_i) under the exit gate within the depth policy's bounds, whatever the exit rule was."""
    policy_version: int
    temperature: float
    filters: TokenFilters = TokenFilters()
    """Under which it was sampled."""
    support_sizes: tuple[int, ...] = ()
    """How many tokens the filters kept, one a completion token; empty where nothing filters by rank or probability."""
    stop_string: str | None = None
    """The stop string that ended the completion. The last token may write more behind it."""
    finish_reason: Literal["stop", "length", "stopped", "cancelled"]
    """A stop token, the longest length allowed, or given up (`EarlyStop`)."""
    depth_policy: DepthPolicy = DepthPolicy()
    """Under which it was sampled."""


@dataclass(frozen=True, kw_only=True)
class ScoredRollout:
    """A rollout with what its verifiers said. Raw parts stay apart; the weighted sum is `reward`."""

    rollout: Rollout
    completion: str
    rewards: Mapping[str, float | None]
    """Raw score by reward name; None = could not be scored."""
    statuses: Mapping[str, str]
    """Why, by reward name: correct, wrong, no_answer, gold_unparsable, timeout, crash, policy."""
    reward: float | None
    """Weighted sum of the raw scores; None when any part is unscored (left out of the baseline, advantage 0)."""
    details: Mapping[str, str] = field(default_factory=dict)
    """What there is to say beside a status, by reward name: the text of a plug-in's error, say."""


def rollout_record(scored: ScoredRollout, advantage: float, step: int, tokens: list[str]) -> dict[str, Any]:
    """One line of `rollouts/*.jsonl` (DESIGN: run directory). `tokens` is the text of each completion token."""
    rollout = scored.rollout
    return {
        "step": step,
        "policy_version": rollout.policy_version,
        "prompt_index": rollout.prompt_index,
        "sample_index": rollout.sample_index,
        "prompt_ids": rollout.prompt_ids,
        "completion_ids": rollout.completion_ids,
        "depths": rollout.depths,
        "token_logprobs": rollout.token_logprobs,
        "depth_logprobs": rollout.depth_logprobs,
        "temperature": rollout.temperature,
        "finish_reason": rollout.finish_reason,
        **asdict(rollout.depth_policy),
        **asdict(rollout.filters),
        "support_sizes": rollout.support_sizes,
        "stop_string": rollout.stop_string,
        "completion": scored.completion,
        "tokens": tokens,
        "rewards": dict(scored.rewards),
        "statuses": dict(scored.statuses),
        "details": dict(scored.details),
        "reward": scored.reward,
        "advantage": advantage,
    }
