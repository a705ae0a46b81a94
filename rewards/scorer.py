"""Scores batches of completions with one or more rewards; raw parts stay apart, their weighted sum stands beside them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, Self

from ouro_rl.errors import UserError
from rewards.math_reward import text_of
from rewards.process_pool import ProcessPool, Reply
from rewards.registry import RewardSpec, load_reward
from rewards.verdict import Status, Verdict


@dataclass(frozen=True, kw_only=True)
class ItemScore:
    """What all rewards said about one completion. Every mapping is by `RewardSpec.label`."""

    rewards: dict[str, float | None]
    """Raw scores, unweighted; None = could not be scored."""
    statuses: dict[str, Status]
    """Custom rewards: `correct` above 0, else `wrong`; `policy` where the function itself returned None."""
    reward: float | None
    """The weighted sum; None when any part is None."""
    details: dict[str, str] = field(default_factory=dict)
    """Why, where there is more to say than the status: the text of a plug-in's error, with its name and the item."""
    verdicts: dict[str, Verdict] = field(default_factory=dict)
    """The whole verdicts, with the extracted answers and times."""


class Scorer:
    """Calls every reward on a batch. Custom functions run one batch at a time in a child that is killed at its deadline;
    a reward that fails leaves None behind, never 0: the caller watches the unscored share and decides when to stop.

    Usable from several threads; from asyncio, call `score` through `asyncio.to_thread`."""

    def __init__(self, specs: Sequence[RewardSpec], *, workers: int = 1, timeout_s: float = 10.0) -> None:
        """workers: processes of each built-in reward. timeout_s: seconds, for an item of a built-in reward and for a
        batch of a custom one, where the spec gives none. Raises UserError for unknown names; custom functions are
        imported in their child, so that theirs comes from the first `score` (check early with `load_reward`)."""
        if not specs:
            raise UserError("no reward is named: give at least one, such as math.")
        labels = [spec.label for spec in specs]
        for label in labels:
            if labels.count(label) > 1:
                raise UserError(f"two rewards are called {label!r}: rename one of the functions.")
        self._specs = tuple(specs)
        self._rewards: dict[str, Any] = {
            spec.label: load_reward(spec, workers=workers, **({} if spec.timeout_s else {"timeout_s": timeout_s}))
            if spec.built_in
            else _CustomReward(spec, timeout_s if spec.timeout_s is None else spec.timeout_s)
            for spec in self._specs
        }

    def score(
        self, prompts: Sequence[Any], completions: Sequence[Any], columns: Mapping[str, Sequence[Any]]
    ) -> list[ItemScore]:
        """One ItemScore a completion, in order.

        prompts: conversations (lists of messages) or texts; completions: texts or conversations; columns: the data
        set's other columns, one value a completion. Rewards see conversations in both, as TRL passes them."""
        counts = {"completions": len(completions), **{name: len(column) for name, column in columns.items()}}
        for name, count in counts.items():
            if count != len(prompts):
                raise ValueError(f"{len(prompts)} prompts, but {count} values in {name}")
        if not completions:
            return []
        prompts = [[{"role": "user", "content": p}] if isinstance(p, str) else list(p) for p in prompts]
        chats = [[{"role": "assistant", "content": c}] if isinstance(c, str) else list(c) for c in completions]
        # Custom rewards work in their children while the built-in ones are computed here.
        pending = {
            label: reward.submit(prompts, chats, dict(columns))
            for label, reward in self._rewards.items()
            if isinstance(reward, _CustomReward)
        }
        texts = [text_of(chat) for chat in chats]
        verdicts = {
            label: reward.collect(pending[label], len(chats))
            if isinstance(reward, _CustomReward)
            else reward.verdicts(texts, dict(columns))
            for label, reward in self._rewards.items()
        }
        return [self._item({label: parts[i] for label, parts in verdicts.items()}) for i in range(len(chats))]

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
        """End every worker."""
        for reward in self._rewards.values():
            reward.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class _CustomReward:
    """One user function behind a pool of one child: it may keep state from batch to batch."""

    def __init__(self, spec: RewardSpec, timeout_s: float) -> None:
        self._name = spec.name
        arguments = {"name": spec.name, "kwargs": dict(spec.kwargs)}
        self._pool = ProcessPool("rewards.custom_reward:make_handler", arguments, workers=1, timeout_s=timeout_s)
        self.close = self._pool.close

    def submit(self, prompts: list[Any], completions: list[Any], columns: dict[str, Any]) -> Future[Reply]:
        return self._pool.submit({"prompts": prompts, "completions": completions, "columns": columns})

    def collect(self, pending: Future[Reply], count: int) -> list[Verdict]:
        reply = pending.result()
        if reply.status != "ok":
            detail = f"reward {self._name!r}, the whole batch: {reply.detail}"
            return [Verdict(value=None, status=reply.status, detail=detail, ms=reply.ms)] * count
        return [self._verdict(i, value, problem, reply.ms / count) for i, (value, problem) in enumerate(reply.value)]

    def _verdict(self, item: int, value: float | None, problem: str | None, ms: float) -> Verdict:
        if problem is not None:
            return Verdict(value=None, status="crash", detail=f"reward {self._name!r}, item {item}: {problem}", ms=ms)
        if value is None:
            return Verdict(value=None, status="policy", detail=f"reward {self._name!r} returned None", ms=ms)
        return Verdict(value=value, status="correct" if value > 0 else "wrong", ms=ms)
