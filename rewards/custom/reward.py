"""Runs a user-defined reward function, including its import, in a killable child process."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Any

from ouro_rl.core.user_functions import REWARD_MEMORY_MB, load_function
from rewards.custom.adapters import call_batch, call_item, kind_of, rows_of
from rewards.processes.pool import ProcessPool, Reply
from rewards.spec import Adapter, RewardSpec
from rewards.verdict import Verdict


def make_handler(name: str, kwargs: dict[str, Any], adapter: Adapter) -> Callable[[dict[str, Any]], Any]:
    """Runs in a worker. Imports the function (raises UserError if that fails) and returns the handler that calls it
    once per batch or once per item."""
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
    """One user-defined function in a pool of one child process, so that it may keep state between batches."""

    def __init__(
        self,
        spec: RewardSpec,
        timeout_s: float,
        start_timeout_s: float = 120.0,
        memory_mb: int = REWARD_MEMORY_MB,
    ) -> None:
        """timeout_s: seconds per call, which is one batch (TRL's signature) or one item (verl's, plain).
        start_timeout_s: seconds for the import. memory_mb: what its process may have for itself."""
        self._memory_mb = memory_mb
        self._name = spec.name
        self._kind: str | None = None
        arguments = {"name": spec.name, "kwargs": dict(spec.kwargs), "adapter": spec.adapter}
        self._pool = ProcessPool(
            "rewards.custom.reward:make_handler",
            arguments,
            workers=1,
            timeout_s=timeout_s,
            start_timeout_s=start_timeout_s,
            memory_mb=memory_mb,
            own_memory=True,
            subject=f"reward {spec.name!r}",
        )
        self.close = self._pool.close

    def kind(self) -> str | None:
        """The function's adapter. The first call starts the child process. Raises UserError if the function cannot be
        imported. None if the child died after the import; the next call then reports why."""
        if self._kind is None:
            reply = self._pool.run([{"question": "kind"}])[0]
            self._kind = reply.value if reply.status == "ok" else None
        return self._kind

    def submit(self, prompts: list[Any], completions: list[Any], columns: dict[str, Any]) -> list[Future[Reply]]:
        """Submit a batch: one call for the whole batch, or one per item."""
        if self.kind() in ("verl", "plain"):
            rows = rows_of(columns, len(completions))
            items = zip(prompts, completions, rows, strict=True)
            return [self._pool.submit({"prompt": p, "completion": c, "columns": row}) for p, c, row in items]
        return [self._pool.submit({"prompts": prompts, "completions": completions, "columns": columns})]

    def collect(self, pending: list[Future[Reply]], names: Sequence[str]) -> list[Verdict]:
        """The verdicts of a submitted batch, in order. names: names of its items in error messages."""
        replies = [future.result() for future in pending]
        if self._kind in ("verl", "plain"):
            return [self._of_item(name, reply) for name, reply in zip(names, replies, strict=True)]
        (reply,) = replies
        if reply.status != "ok":
            batch = names[0] if len(names) == 1 else "the whole batch"
            detail = f"reward {self._name!r}, {batch}: {self._explained(reply.detail)}"
            return [Verdict(value=None, status=reply.status, detail=detail, ms=reply.ms)] * len(names)
        ms = reply.ms / len(names)
        return [
            self._verdict(name, value, problem, ms) for name, (value, problem) in zip(names, reply.value, strict=True)
        ]

    def _of_item(self, item: str, reply: Reply) -> Verdict:
        if reply.status != "ok":
            detail = f"reward {self._name!r}, {item}: {self._explained(reply.detail)}"
            return Verdict(value=None, status=reply.status, detail=detail, ms=reply.ms)
        value, problem = reply.value
        return self._verdict(item, value, problem, reply.ms)

    def _verdict(self, item: str, value: float | None, problem: str | None, ms: float) -> Verdict:
        if problem is not None:
            return Verdict(
                value=None, status="crash", detail=f"reward {self._name!r}, {item}: {self._explained(problem)}", ms=ms
            )
        if value is None:
            return Verdict(value=None, status="policy", detail=f"reward {self._name!r} returned None", ms=ms)
        return Verdict(value=value, status="correct" if value > 0 else "wrong", ms=ms)

    def _explained(self, detail: str) -> str:
        """A failure, with the limit that it may be due to."""
        is_memory = detail == "out of memory" or "MemoryError" in detail
        return f"{detail} (rewards.memory_mb is {self._memory_mb})" if is_memory else detail
