"""Scores batches of completions with one or more rewards. Reports each raw score and their weighted sum."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

from ouro_rl.core.errors import UserError
from ouro_rl.core.user_functions import REWARD_MEMORY_MB
from rewards.custom.reward import CustomReward
from rewards.messages import text_of
from rewards.registry import BuiltInReward, make_built_in
from rewards.spec import RewardSpec
from rewards.verdict import Status, Verdict

MOST_SHOWN = 120
"""Characters of a completion in a message."""


@dataclass(frozen=True, kw_only=True)
class ItemScore:
    """The scores of one completion. Every mapping is keyed by `RewardSpec.label`."""

    rewards: dict[str, float | None]
    """Raw scores, unweighted; None = could not be scored."""
    statuses: dict[str, Status]
    """For custom rewards: `correct` above 0, else `wrong`; `policy` if the function returned None."""
    reward: float | None
    """The weighted sum; None if any score is None."""
    details: dict[str, str] = field(default_factory=dict)
    """Explanations beyond the status, such as a custom reward's error message with its name and the item."""
    verdicts: dict[str, Verdict] = field(default_factory=dict)
    """The complete verdicts, including extracted answers and times."""


class Scorer:
    """Calls every reward on a batch. Custom functions run one batch at a time in a child process that is killed at its
    deadline. A reward that fails gives None, never 0: the caller monitors the unscored share and decides when to stop.

    Thread-safe; from asyncio, call `score` through `asyncio.to_thread`."""

    def __init__(
        self,
        specs: Sequence[RewardSpec],
        *,
        workers: int = 1,
        timeout_s: float = 10.0,
        memory_mb: int = REWARD_MEMORY_MB,
    ) -> None:
        """workers: processes per built-in reward. timeout_s: seconds per item of a built-in reward and per batch of a
        custom one, unless set in the spec. memory_mb: memory of a custom function's process. Raises UserError for
        unknown names. Custom functions are imported in their child process, so their UserError comes from the first
        `score` (use `check_reward` to check early)."""
        if not specs:
            raise UserError("no reward is given: name at least one, such as math")
        labels = [spec.label for spec in specs]
        for label in labels:
            if labels.count(label) > 1:
                raise UserError(f"two rewards are named {label!r}: rename one of the functions")
        self._specs = tuple(specs)
        self.labels = tuple(labels)
        """The names of the rewards."""
        self.any_order = all(spec.built_in for spec in self._specs)
        """Whether items may be scored in any order. Custom functions may keep state between batches."""
        self._rewards: dict[str, BuiltInReward | CustomReward] = {
            spec.label: make_built_in(spec, workers=workers, **({} if spec.timeout_s else {"timeout_s": timeout_s}))
            if spec.built_in
            else CustomReward(spec, timeout_s if spec.timeout_s is None else spec.timeout_s, memory_mb=memory_mb)
            for spec in self._specs
        }

    def score(
        self,
        prompts: Sequence[Any],
        completions: Sequence[Any],
        columns: Mapping[str, Sequence[Any]],
        completion_ids: Sequence[Sequence[int]] | None = None,
        names: Sequence[str] | None = None,
    ) -> list[ItemScore]:
        """One ItemScore per completion, in order.

        prompts, completions: strings or conversations (lists of messages); rewards receive both as conversations, as
        in TRL. columns: the data set's other columns, one value per completion. completion_ids: token ids of the
        completions, if known. names: names of the completions in errors ("row 7"); default "item 0", "item 1", ...
        Raises ValueError if the lengths differ."""
        counts = {"completions": len(completions), **{name: len(column) for name, column in columns.items()}}
        for name, count in counts.items():
            if count != len(prompts):
                raise ValueError(f"{len(prompts)} prompts, but {count} values in {name}")
        if not completions:
            return []
        prompts = [[{"role": "user", "content": p}] if isinstance(p, str) else list(p) for p in prompts]
        chats = [[{"role": "assistant", "content": c}] if isinstance(c, str) else list(c) for c in completions]
        tokens = {} if completion_ids is None else {"completion_ids": [list(ids) for ids in completion_ids]}
        columns, beside = {**columns, **tokens}, {"prompts": prompts, **tokens}
        # Custom rewards run in their child processes while the built-in ones are computed here.
        pending = {
            label: reward.submit(prompts, chats, columns)
            for label, reward in self._rewards.items()
            if isinstance(reward, CustomReward)
        }
        texts = [text_of(chat) for chat in chats]
        called = [f"item {i}" for i in range(len(chats))] if names is None else list(names)
        verdicts = {
            label: reward.collect(pending[label], called)
            if isinstance(reward, CustomReward)
            else reward.verdicts(texts, _for_built_in(reward, columns, beside))
            for label, reward in self._rewards.items()
        }
        return [self._item({label: parts[i] for label, parts in verdicts.items()}) for i in range(len(chats))]

    def as_passed(self, completion: str) -> dict[str, str]:
        """By reward, the argument in which it gets this completion, as Python would write it."""
        chat = [{"role": "assistant", "content": _shortened(completion)}]
        forms = {"trl": f"completions=[{chat}, ...]", "verl": f"solution_str={text_of(chat)!r}"}
        kinds = {
            label: reward.kind() if isinstance(reward, CustomReward) else None
            for label, reward in self._rewards.items()
        }
        return {label: forms.get(kind or "", f"completion={text_of(chat)!r}") for label, kind in kinds.items()}

    def _item(self, verdicts: dict[str, Verdict]) -> ItemScore:
        weights = {spec.label: spec.weight for spec in self._specs}
        values = {label: verdict.value for label, verdict in verdicts.items()}
        unscored = any(value is None for value in values.values())
        return ItemScore(
            rewards=values,
            statuses={label: verdict.status for label, verdict in verdicts.items()},
            reward=None if unscored else sum(weights[label] * (value or 0.0) for label, value in values.items()),
            details={label: verdict.detail for label, verdict in verdicts.items() if verdict.detail},
            verdicts=verdicts,
        )

    def close(self) -> None:
        """End all workers."""
        for reward in self._rewards.values():
            reward.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _shortened(text: str) -> str:
    return text if len(text) <= MOST_SHOWN else text[:MOST_SHOWN] + "..."


def check_reward(spec: RewardSpec | str, *, timeout_s: float = 60.0) -> None:
    """Raise UserError if this reward cannot be used. A custom function is imported in a child process, within
    `timeout_s` seconds."""
    spec = RewardSpec(spec) if isinstance(spec, str) else spec
    if spec.built_in:
        make_built_in(spec).close()
        return
    reward = CustomReward(spec, timeout_s, start_timeout_s=timeout_s)
    try:
        reward.kind()
    finally:
        reward.close()


def _for_built_in(reward: Any, columns: Mapping[str, Any], beside: Mapping[str, Any]) -> dict[str, Any]:
    """The data set's columns, and the further inputs that a built-in reward wants."""
    wanted = getattr(reward, "wants", ())
    own = {name: column for name, column in columns.items() if name != "completion_ids"}
    return {**own, **{name: beside[name] for name in wanted if name in beside}}
