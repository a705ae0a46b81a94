"""Records passed between the packages: frozen, keyword-only, and made of plain Python values so that they pickle
anywhere.

Depth is always 1-based: the number of loops a token ran. `NO_DEPTH` marks positions without one; `NO_VERSION` tokens
that no single policy version accounts for.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from ouro_rl.core.sampling_params import DepthPolicy, TokenFilters

FinishReason = Literal["stop", "length", "abort", "cancelled", "lost"]
"""Why a completion ended: `stop` at a stop token or stop string, `length` at `max_new_tokens`, `abort` by an
`EarlyStop` rule, `cancelled` by the caller; `lost`: there is none, because its prompt kills the workers."""

CacheOnChange = Literal["keep", "recompute"]
"""When weights change under a sample, its keys and values stay as the old weights have computed them, or are computed
anew by the new ones."""
NO_VERSION = -1


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
class WeightChange:
    """Weights changed under a sample that had `start` tokens."""

    start: int
    """The first completion token that the new weights drew."""
    version: int
    """Their policy version."""
    recomputed: bool
    """Whether they also computed the keys and values of the prompt and of all tokens before `start` anew."""


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
    """Of the weights that began the sample; that of all its tokens unless `weight_changes` says otherwise."""
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
    weight_changes: tuple[WeightChange, ...] = ()
    """The changes of weights under the sample, in order. With them it can be repeated: each token was drawn by one
    version, from its first loop to its last."""

    @property
    def token_versions(self) -> tuple[int, ...]:
        """Policy version of the weights that drew each completion token."""
        return tuple(version for count, version, _ in self._stretches() for _ in range(count))

    @property
    def newest_version(self) -> int:
        return max([self.policy_version, *(change.version for change in self.weight_changes)])

    @property
    def mean_version(self) -> float:
        """The mean over its tokens."""
        versions = self.token_versions
        return sum(versions) / len(versions) if versions else self.policy_version

    @property
    def replay_versions(self) -> tuple[int, ...]:
        """The version under which a replay gives each token's recorded log-probs: that which drew it, if it also
        computed all keys and values that the token read; else `NO_VERSION`."""
        versions: list[int] = []
        cached = self.policy_version
        for count, version, recomputed in self._stretches():
            cached = version if recomputed or cached == version else NO_VERSION
            versions += [cached] * count
        return tuple(versions)

    def _stretches(self) -> Iterator[tuple[int, int, bool]]:
        """(number of tokens, version that drew them, whether it first computed everything before them anew)."""
        starts = [*(change.start for change in self.weight_changes), len(self.completion_ids)]
        yield starts[0], self.policy_version, True
        for change, stop in zip(self.weight_changes, starts[1:], strict=True):
            yield stop - change.start, change.version, change.recomputed


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
