"""A data set's own comparison: a function `check`, run in a sandbox without the program, for problems with more than
one right answer."""

from __future__ import annotations

from typing import Any

from rewards.code_grader.session import Session, words
from rewards.code_grader.time_budget import Budget
from rewards.sandbox.host import Sandbox
from rewards.sandbox.inside import values


class Checker:
    """A checker's process, started when it is first needed. Use it in a `with` block."""

    def __init__(self, sandbox: Sandbox, source: str, budget: Budget) -> None:
        """source: Python that defines check(...); or the name of a built-in comparison, which needs no process."""
        self.own = "check" in source
        """Whether this is a checker, and no built-in comparison."""
        self.problem = ""
        """Why the checker cannot be used; empty if it can. What fails on the program's output alone is the program's
        fault: otherwise nonsense would go unscored where a wrong answer is worth 0."""
        self._session = Session(sandbox, source, budget, [], None)

    def accepts(self, stdin: str, stdout: str, expected: str) -> bool:
        """Whether check(stdin, stdout, expected) is true."""
        return self._accepts(stdin, stdout, expected)

    def accepts_value(self, args: list[Any], value: Any, expected: Any) -> bool:
        """Whether check(args, value, expected) is true. All are encoded as by `values.encode`."""
        return self._accepts(args, value, expected)

    def _accepts(self, given: Any, got: Any, expected: Any) -> bool:
        accepted, problem = self._ask(given, got, expected)
        if problem and self._ask(given, expected, expected)[1]:
            self.problem = problem
        return accepted

    def _ask(self, given: Any, got: Any, expected: Any) -> tuple[bool, str]:
        """Whether the checker says yes, and why it says neither yes nor no; empty if it does."""
        answer = self._session.ask({"do": "name", "name": "check", "args": [given, got, expected], "kwargs": {}})
        if "error" in answer:
            return False, f"the checker fails: {words(answer['error'])}"
        if type(answer["ok"]) not in (bool, int, float) and not values.is_data(answer["ok"]):
            return False, "the checker must return true or false"
        return bool(answer["ok"]), ""

    def __enter__(self) -> Checker:
        return self

    def __exit__(self, *error: object) -> None:
        self._session.__exit__(*error)
