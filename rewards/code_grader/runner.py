"""Runs one program against one set of tests in a sandbox. The verdict is made here, outside: what a program sends are values,
and no answer is a fail."""

from __future__ import annotations

import contextlib
import random
import secrets
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from rewards.code_grader.compare import same_value
from rewards.code_grader.forms import AssertTests, CaseTests, ScriptTests, Tests
from rewards.code_grader.script import checked, run_script, words
from rewards.code_grader.time_budget import Budget, Times
from rewards.sandbox.host import Child, ChildGone, Sandbox
from rewards.sandbox.inside import wire


@dataclass(kw_only=True)
class Outcome:
    """What became of a program's tests."""

    count: int
    """How many were asked."""
    passed: set[int] = field(default_factory=set)
    failures: list[str] = field(default_factory=list)
    """Why tests failed, in words, the first ones first."""
    unusable: str = ""
    """Why the tests themselves could not be used; empty when they could."""

    def record(self, test: int, passed: bool, why: str = "") -> None:
        """A later failure of a test outweighs its success."""
        if passed:
            self.passed.add(test)
        else:
            self.passed.discard(test)
            self.failures.append(f"test {test + 1} of {self.count}: {why}")


def run(sandbox: Sandbox, program: str, tests: Tests, times: Times, *, all_or_nothing: bool) -> Outcome:
    """Run the tests in random order. all_or_nothing: stop at the first that fails. Raises SandboxError."""
    budget = Budget(times)
    outcome = Outcome(count=tests.count)
    if isinstance(tests, ScriptTests):
        for number in _shuffled(tests.count):
            budget.next_test()
            why = run_script(sandbox, program, tests.runs[number], budget)
            outcome.record(number, not why, why)
            if (why and all_or_nothing) or budget.over():
                break
        return outcome
    with _Program(sandbox, program, budget) as running, contextlib.ExitStack() as stack:
        running.begin()
        judge = stack.enter_context(sandbox.child("judge")) if isinstance(tests, AssertTests) else None
        running.finish_loading()
        if running.broken:
            outcome.failures.append(running.broken)
        elif isinstance(tests, CaseTests):
            _run_cases(running, tests, outcome, all_or_nothing)
        else:
            assert judge is not None
            if not _run_asserts(judge, running, tests, outcome, all_or_nothing) and tests.recorded:
                # A loop's assert has held so far, not to the end; and what follows the last assert is part of that one.
                outcome.passed -= tests.repeated | {tests.count - 1}
    return outcome


def _shuffled(count: int) -> list[int]:
    return random.SystemRandom().sample(range(count), count)


class _Program:
    """A program in its sandbox, started again when a call has ended it."""

    def __init__(self, sandbox: Sandbox, source: str, budget: Budget) -> None:
        self._sandbox, self._source, self.budget = sandbox, source, budget
        self._child: Child | None = None
        self._nonce = ""
        self._problem: dict[str, Any] = {}
        self.broken = ""
        """Why the program cannot be loaded; empty when it can."""

    def over(self) -> bool:
        """Whether its time is up."""
        return self.budget.over(self._child)

    def begin(self) -> None:
        """Start the program anew, without waiting for it to be loaded."""
        self.budget.next_test()
        self._child = self._sandbox.child("candidate")
        self._problem = self._tell({"program": self._source, "script": False})

    def finish_loading(self) -> None:
        """Sets `broken` when the program cannot be loaded."""
        answer = self._problem or self._hear()
        if "error" in answer:
            self.broken = "loading the program: " + words(answer["error"])

    def call(self, name: str, args: Any, kwargs: Any) -> dict[str, Any]:
        """{"ok": encoded value} (with "changed"), or {"error": [kind, text]}; whatever else it says ends the program."""
        if self._child is None and not self.broken:
            self.begin()
            self.finish_loading()
        if self.broken:
            return {"error": ["ProgramEnded", self.broken]}
        return self._tell({"name": name, "args": args, "kwargs": kwargs}) or self._hear()

    def _tell(self, message: dict[str, Any]) -> dict[str, Any]:
        """Empty, or the error that came of it."""
        self._nonce = secrets.token_hex(8)
        return self._guarded(lambda child: child.send({"nonce": self._nonce, **message}, self.budget.deadline) or {})

    def _hear(self) -> dict[str, Any]:
        return self._guarded(self._answer)

    def _answer(self, child: Child) -> dict[str, Any]:
        answer = self.budget.wait(child, child.receive)
        if answer.get("nonce") != self._nonce:
            raise ChildGone("an answer to no question")
        return checked(answer)

    def _guarded(self, action: Callable[[Child], dict[str, Any]]) -> dict[str, Any]:
        assert self._child is not None
        try:
            return action(self._child)
        except TimeoutError:
            self._stop()
            return {"error": ["TimedOut", "timed out"]}
        except wire.NotPlain as error:
            return {"error": ["TooLarge", str(error)]}
        except ChildGone as error:
            return {"error": ["ProgramEnded", self._stop() or str(error)]}

    def _stop(self) -> str:
        child, self._child = self._child, None
        return child.close() if child else ""

    def __enter__(self) -> _Program:
        return self

    def __exit__(self, *_: object) -> None:
        self._stop()


def _run_cases(program: _Program, tests: CaseTests, outcome: Outcome, all_or_nothing: bool) -> None:
    for number in _shuffled(tests.count):
        if program.over():
            outcome.failures.append("timed out")
            return
        case = tests.cases[number]
        program.budget.next_test()
        answer = program.call(tests.entry_point, list(case.args), dict(case.kwargs))
        passed = "ok" in answer and same_value(answer["ok"], case.expected, case.tolerance)
        outcome.record(number, passed, words(answer["error"]) if "error" in answer else "another value")
        if all_or_nothing and not passed:
            return


def _run_asserts(judge: Child, program: _Program, tests: AssertTests, outcome: Outcome, all_or_nothing: bool) -> bool:
    """The judge runs the tests in a sandbox of its own; its calls are passed on to the program, as data both ways. Whether
    the tests ran to their end."""
    order = _shuffled(len(tests.sources))
    request = {
        "setup": tests.setup,
        "names": dict(tests.names),
        "tests": [[number, tests.sources[number]] for number in order],
        "recorded": tests.recorded,
    }
    try:
        judge.send(request, program.budget.deadline)
        program.budget.next_test()
        while True:
            said = program.budget.wait(judge, judge.receive)
            if "call" in said:
                _pass_on(judge, program.call(said["call"], said["args"], said["kwargs"]), program.budget.deadline + 1)
            elif "result" in said:
                number, passed, why = said["result"]
                outcome.record(number, passed, why or "it does not hold")
                program.budget.next_test()
                if all_or_nothing and not passed:
                    return False
                if program.over():
                    outcome.failures.append("timed out")
                    return False
            else:
                outcome.unusable = said.get("unusable", "")
                if said.get("problem") and tests.recorded:
                    outcome.failures.append(f"the tests could not go on: {said['problem']}")
                return not said.get("problem")
    except TimeoutError:
        outcome.failures.append("timed out")
    except ChildGone as error:
        outcome.failures.append(f"the tests did not come to their end: {judge.close() or error}")
    except wire.NotPlain as error:
        outcome.unusable = str(error)
    return False


def _pass_on(judge: Child, answer: dict[str, Any], deadline: float) -> None:
    try:
        judge.send(answer, deadline)
    except wire.NotPlain as error:  # the program's doing, like any other error of its
        judge.send({"error": ["TooLarge", str(error)]}, deadline)
