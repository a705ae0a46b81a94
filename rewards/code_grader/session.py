"""A model's program in its sandbox: loaded, asked, and started again after a question has ended it."""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable
from typing import Any

from rewards.code_grader.leetcode import LEETCODE
from rewards.code_grader.time_budget import Budget
from rewards.sandbox.host import Child, ChildGone, Sandbox
from rewards.sandbox.inside import wire

Callback = Callable[[dict[str, Any]], dict[str, Any]]
"""Answers a program's call of a function of the tests."""
_SOLUTION = re.compile(r"^class Solution\b", re.MULTILINE)
_STARTS = 32
"""Objects of a program have numbers of this many bits above which it is counted how often it was started."""


class Session:
    """A program in its sandbox. Use it in a `with` block."""

    def __init__(self, sandbox: Sandbox, source: str, budget: Budget, names: list[str], memory_mb: int | None) -> None:
        """names: what the tests want to know of the program once it is loaded; see `bindings`. memory_mb: None = the
        sandbox's limit."""
        self._memory_mb = memory_mb
        self._sandbox, self._source, self.budget, self._names = sandbox, source, budget, names
        self._child: Child | None = None
        self._starts = 0
        self._problem: dict[str, Any] = {}
        self._loading = ""
        self.bindings: list[Any] = [[] for _ in names]
        """What the program defines under each name: [encoded value], or [] for nothing."""
        self.broken = ""
        """Why the program cannot be loaded; empty if it can."""
        self.causes: set[str] = set()
        """Kinds of errors that were not the program's answer to its task: MemoryError, TooLarge."""

    def over(self) -> bool:
        """Whether the program's time has run out."""
        return self.budget.over(self._child)

    def begin(self) -> None:
        """Start the program, without waiting until it is loaded."""
        self.budget.next_test()
        self._child = self._sandbox.child("candidate", memory_mb=self._memory_mb)
        request = {
            "program": self._source,
            "prelude": LEETCODE if _SOLUTION.search(self._source) else "",
            "script": False,
            "names": self._names,
            "first": self._starts << _STARTS,
        }
        self._starts += 1
        self._loading, self._problem = self._tell(request)

    def finish_loading(self) -> None:
        """Wait until the program is loaded. Sets `bindings`, or `broken` if that fails."""
        answer = self._problem or self._hear(self._loading)
        if "error" in answer:
            self.broken = "the program cannot be loaded: " + words(answer["error"])
        elif type(answer["ok"]) is list and [*map(type, answer["ok"])] == [list] * len(self._names):
            self.bindings = answer["ok"]

    def ask(self, question: dict[str, Any], callback: Callback | None = None) -> dict[str, Any]:
        """Ask a question. Returns {"ok": encoded value, "changed": [...]}, or {"error": [kind, text]} (perhaps with
        "raised"). Any other answer ends the program. callback: answers calls of the tests' functions."""
        if self._child is None and not self.broken:
            self.begin()
            self.finish_loading()
        if self.broken:
            return {"error": ["ProgramEnded", self.broken]}
        nonce, answer = self._tell(question)
        answer = answer or self._hear(nonce)
        while "callback" in answer:
            if callback is None:
                self._stop()
                return {"error": ["ProgramEnded", "the program sent an answer that was not requested"]}
            reply = callback(answer)
            _, problem = self._tell(reply)
            if problem:  # the program waits for what could not be sent
                self._stop()
            answer = problem or self._hear(nonce)
        return answer

    def _tell(self, message: dict[str, Any]) -> tuple[str, dict[str, Any]]:
        """Send a message. Returns its nonce, and an empty dict or {"error": ...}."""
        nonce = secrets.token_hex(8)

        def send(child: Child) -> dict[str, Any]:
            child.send({"nonce": nonce, **message}, self.budget.deadline)
            return {}

        return nonce, self._guarded(send)

    def _hear(self, nonce: str) -> dict[str, Any]:
        def answer(child: Child) -> dict[str, Any]:
            said = self.budget.wait(child, child.receive)
            if said.get("nonce") != nonce:
                raise ChildGone("the program sent an answer that was not requested")
            return checked(said)

        return self._guarded(answer)

    def _guarded(self, action: Callable[[Child], dict[str, Any]]) -> dict[str, Any]:
        if self._child is None:  # it has ended during a callback
            return {"error": ["ProgramEnded", "the program has ended"]}
        try:
            answer = action(self._child)
        except TimeoutError:
            self._stop()
            return {"error": ["TimedOut", "timed out"]}
        except wire.NotPlain as error:
            answer = {"error": ["TooLarge", str(error)]}
        except ChildGone as error:
            return {"error": ["ProgramEnded", self._stop() or str(error)]}
        if "error" in answer:
            self.causes.add(answer["error"][0])
        return answer

    def _stop(self) -> str:
        child, self._child = self._child, None
        return child.close() if child else ""

    def __enter__(self) -> Session:
        return self

    def __exit__(self, *_: object) -> None:
        self._stop()


def checked(answer: dict[str, Any]) -> dict[str, Any]:
    """The valid parts of an answer. Raises ChildGone if a required part is missing or has a wrong type."""
    if type(answer.get("callback")) is int and type(answer.get("args")) is list and type(answer.get("kwargs")) is dict:
        return {name: answer[name] for name in ("callback", "args", "kwargs")}
    error = answer.get("error")
    if error is not None:
        if type(error) is not list or len(error) != 2 or not all(type(part) is str for part in error):
            raise ChildGone("a malformed answer")
        raised = answer.get("raised")
        return {"error": [part[:300] for part in error], **({"raised": raised} if type(raised) is list else {})}
    if "ok" not in answer:
        raise ChildGone("a malformed answer")
    changed = answer.get("changed", [])
    if type(changed) is not list or not all(type(part) is list and len(part) == 2 for part in changed):
        raise ChildGone("a malformed answer")
    return {"ok": answer["ok"], "changed": changed}


def words(error: list[str]) -> str:
    """An error [kind, text] as one string."""
    return error[1] if error[0] in ("TimedOut", "ProgramEnded") else f"{error[0]}: {error[1]}".rstrip(": ")
