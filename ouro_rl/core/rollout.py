"""Records passed between the packages: frozen, keyword-only, and made of plain Python values so that they pickle
anywhere.

Depth is always 1-based: the number of loops a token ran. `NO_DEPTH` marks positions without one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from ouro_rl.core.sampling_params import DepthPolicy, TokenFilters

FinishReason = Literal["stop", "length", "abort", "cancelled", "lost"]
"""Why a completion ended: `stop` at a stop token or stop string, `length` at `max_new_tokens`, `abort` by an
`EarlyStop` rule, `cancelled` by the caller; `lost`: there is none, because its prompt kills the workers."""


@dataclass(frozen=True, kw_only=True)
class Prompt:
    """One tokenized prompt."""

    index: int
    """Position in its data set; part of every sample's seed."""
    token_ids: tuple[int, ...]
    """The rendered chat template, as token ids; at least one."""
    messages: list[dict[str, str]] = field(default_factory=list)
    """The conversation that was rendered, passed to reward functions as `prompts`."""
    columns: Mapping[str, Any] = field(default_factory=dict)
    """The data set's other columns (`answer`, ...), passed to reward functions as keyword arguments."""


@dataclass(frozen=True, kw_only=True)
class RolloutRequest:
    """One group to sample: `len(seeds)` completions of one prompt."""

    prompt: Prompt
    seeds: tuple[int, ...]
    """One 63-bit seed per sample: it fixes the sample's tokens and depths, whatever else is in the batch."""
    fixed_depths: tuple[int | None, ...] = ()
    """Depth of all tokens of each sample, in the order of the seeds; None: the exit rule chooses. Empty: of all of
    them."""

    def fixed_depth(self, sample: int) -> int | None:
        return self.fixed_depths[sample] if self.fixed_depths else None


@dataclass(frozen=True, kw_only=True)
class Rollout:
    """One completion with everything the trainer needs to replay it."""

    prompt_index: int
    sample_index: int
    """Index in the group."""
    prompt_ids: tuple[int, ...]
    completion_ids: tuple[int, ...]
    token_logprobs: tuple[float, ...]
    """log pi(y_i) at depth d_i, in nats, one per completion token: under the distribution that was sampled from, with
    temperature and filters."""
    depths: tuple[int, ...]
    """Loops run at the position that predicts `completion_ids[i]` (for i = 0, the last prompt position)."""
    depth_logprobs: tuple[float, ...]
    """log p(d_i) under the exit gate within the depth policy's bounds, in nats, whatever the exit rule was."""
    exit_shares: bytes = b""
    """uint8 [completion tokens, loops], row by row: p(d_i = t) under the exit gate for t = 1..d_i, in 255ths, and 0 for
    loops that were not reached. For people to look at; no loss reads it. Empty: not recorded."""
    policy_version: int
    temperature: float
    filters: TokenFilters = TokenFilters()
    """The filters it was sampled with."""
    support_sizes: tuple[int, ...] = ()
    """How many tokens the filters kept, one entry per completion token; empty if nothing filters by rank or
    probability."""
    forced: tuple[int, int] = (0, 0)
    """Completion tokens from the first to before the second of these were given, not drawn: a thought was closed
    (`ThinkingBudget`). The policy gives them probability 1: their log-prob is 0. Their depths were chosen as any."""
    stop_string: str | None = None
    """The stop string that ended the completion. The last token may contain text after it."""
    finish_reason: FinishReason
    depth_policy: DepthPolicy = DepthPolicy()
    """The depth policy it was sampled with."""
    fixed_depth: int | None = None
    """Depth of all its tokens, where the request fixed one. None: the exit rule chose the depths."""


@dataclass(frozen=True, kw_only=True)
class ScoredRollout:
    """A rollout with its scores. Raw scores are kept by reward name; their weighted sum is `reward`."""

    rollout: Rollout
    completion: str
    rewards: Mapping[str, float | None]
    """Raw score by reward name; None: could not be scored."""
    statuses: Mapping[str, str]
    """Reason for the score, by reward name: correct, wrong, no_answer, gold_unparsable, timeout, crash, policy, memory,
    limit."""
    reward: float | None
    """Weighted sum of the raw scores. None if any of them is None: left out of the baseline, advantage 0."""
    details: Mapping[str, str] = field(default_factory=dict)
    """More about a status, by reward name, such as the error message of a custom reward."""
