"""A user's reward function in a killable child: imported there, called there, by the adapter that fits it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Any

from ouro_rl.core.user_functions import load_function
from rewards.custom.adapters import call_batch, call_item, kind_of, rows_of
from rewards.processes.pool import ProcessPool, Reply
from rewards.spec import Adapter, RewardSpec
from rewards.verdict import Verdict


def make_handler(name: str, kwargs: dict[str, Any], adapter: Adapter) -> Callable[[dict[str, Any]], Any]:
    """Runs in a worker: imports the function (UserError when it cannot), then calls it once a batch or once an item."""
    function = load_function(name, "reward")
    kind = kind_of(function, adapter, name)

    def handle(payload: dict[str, Any]) -> Any:
        if "question" in payload:
            return kind
        if kind == "trl":
            return call_batch(function, kwargs, payload)
        return call_item(function, kind, kwargs, payload)

    return handle


class CustomReward:
    """One user function behind a pool of one child: it may keep state from batch to batch."""

    def __init__(self, spec: RewardSpec, timeout_s: float, start_timeout_s: float = 120.0) -> None:
        """timeout_s: for a call, which is a batch (TRL's signature) or an item (verl's, plain). start_timeout_s: for the import."""
        self._name = spec.name
        self._kind: str | None = None
        arguments = {"name": spec.name, "kwargs": dict(spec.kwargs), "adapter": spec.adapter}
        self._pool = ProcessPool(
            "rewards.custom.reward:make_handler", arguments, workers=1, timeout_s=timeout_s,
            start_timeout_s=start_timeout_s, subject=f"reward {spec.name!r}",
        )  # fmt: skip
        self.close = self._pool.close

    def kind(self) -> str | None:
        """How the function is called; the first time, its child is started. UserError when it cannot be imported. None when
        the child died afterwards, before it could say so: the next call tells why."""
        if self._kind is None:
            reply = self._pool.run([{"question": "kind"}])[0]
            self._kind = reply.value if reply.status == "ok" else None
        return self._kind

    def submit(self, prompts: list[Any], completions: list[Any], columns: dict[str, Any]) -> list[Future[Reply]]:
        """Hand over a batch: one call for all, or one for each."""
        if self.kind() in ("verl", "plain"):
            rows = rows_of(columns, len(completions))
            items = zip(prompts, completions, rows, strict=True)
            return [self._pool.submit({"prompt": p, "completion": c, "columns": row}) for p, c, row in items]
        return [self._pool.submit({"prompts": prompts, "completions": completions, "columns": columns})]

    def collect(self, pending: list[Future[Reply]], names: Sequence[str]) -> list[Verdict]:
        """The verdicts of a submitted batch, in order. names: how errors call its items."""
        replies = [future.result() for future in pending]
        if self._kind in ("verl", "plain"):
            return [self._of_item(name, reply) for name, reply in zip(names, replies, strict=True)]
        (reply,) = replies
        if reply.status != "ok":
            batch = names[0] if len(names) == 1 else "the whole batch"
            detail = f"reward {self._name!r}, {batch}: {reply.detail}"
            return [Verdict(value=None, status=reply.status, detail=detail, ms=reply.ms)] * len(names)
        ms = reply.ms / len(names)
        return [
            self._verdict(name, value, problem, ms) for name, (value, problem) in zip(names, reply.value, strict=True)
        ]

    def _of_item(self, item: str, reply: Reply) -> Verdict:
        if reply.status != "ok":
            detail = f"reward {self._name!r}, {item}: {reply.detail}"
            return Verdict(value=None, status=reply.status, detail=detail, ms=reply.ms)
        return self._verdict(item, *reply.value, reply.ms)

    def _verdict(self, item: str, value: float | None, problem: str | None, ms: float) -> Verdict:
        if problem is not None:
            return Verdict(value=None, status="crash", detail=f"reward {self._name!r}, {item}: {problem}", ms=ms)
        if value is None:
            return Verdict(value=None, status="policy", detail=f"reward {self._name!r} returned None", ms=ms)
        return Verdict(value=value, status="correct" if value > 0 else "wrong", ms=ms)
