"""Records that travel between the packages. Frozen and keyword-only; plain Python values, so that they pickle anywhere.

Depth is always 1-based: the number of loops that ran for a token. `NO_DEPTH` marks positions that have none.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from ouro_rl.core.sampling_params import DepthPolicy, TokenFilters

FinishReason = Literal["stop", "length", "abort", "cancelled"]
"""Why a completion ended: `stop` at a stop token or stop string, `length` at `max_new_tokens`, `abort` when the rule `EarlyStop` gave it up,
`cancelled` by the caller."""


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
    finish_reason: FinishReason
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
