"""Runs one program against one set of tests in a sandbox. The results are decided here, outside of the sandbox: a
program only sends values, and a missing answer is a failure."""

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
    """The results of a program's tests."""

    count: int
    """Number of tests."""
    passed: set[int] = field(default_factory=set)
    failures: list[str] = field(default_factory=list)
    """Why tests failed, in the order of the run."""
    unusable: str = ""
    """Why the tests themselves could not be used; empty if they could."""

    def record(self, test: int, passed: bool, why: str = "") -> None:
        """Record a result. A later failure of a test overrides its success."""
        if passed:
            self.passed.add(test)
        else:
            self.passed.discard(test)
            self.failures.append(f"test {test + 1} of {self.count}: {why}")


def run(sandbox: Sandbox, program: str, tests: Tests, times: Times, *, all_or_nothing: bool) -> Outcome:
    """Run the tests in random order. all_or_nothing: stop at the first failure. Raises SandboxError."""
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
                # The run was cut short: an assert in a loop may still have failed later, and the code after the last
                # assert belongs to that test.
                outcome.passed -= tests.repeated | {tests.count - 1}
    return outcome


def _shuffled(count: int) -> list[int]:
    return random.SystemRandom().sample(range(count), count)


class _Program:
    """A program in its sandbox. It is restarted after a call has ended it."""

    def __init__(self, sandbox: Sandbox, source: str, budget: Budget) -> None:
        self._sandbox, self._source, self.budget = sandbox, source, budget
        self._child: Child | None = None
        self._nonce = ""
        self._problem: dict[str, Any] = {}
        self.broken = ""
        """Why the program cannot be loaded; empty if it can."""

    def over(self) -> bool:
        """Whether the program's time has run out."""
        return self.budget.over(self._child)

    def begin(self) -> None:
        """Start the program again, without waiting until it is loaded."""
        self.budget.next_test()
        self._child = self._sandbox.child("candidate")
        self._problem = self._tell({"program": self._source, "script": False})

    def finish_loading(self) -> None:
        """Wait until the program is loaded. Sets `broken` if that fails."""
        answer = self._problem or self._hear()
        if "error" in answer:
            self.broken = "the program cannot be loaded: " + words(answer["error"])

    def call(self, name: str, args: Any, kwargs: Any) -> dict[str, Any]:
        """Call a function. Returns {"ok": encoded value} (perhaps with "changed"), or {"error": [kind, text]}. Any
        other answer ends the program."""
        if self._child is None and not self.broken:
            self.begin()
            self.finish_loading()
        if self.broken:
            return {"error": ["ProgramEnded", self.broken]}
        return self._tell({"name": name, "args": args, "kwargs": kwargs}) or self._hear()

    def _tell(self, message: dict[str, Any]) -> dict[str, Any]:
        """Send a message. Returns an empty dict, or {"error": ...}."""
        self._nonce = secrets.token_hex(8)

        def send(child: Child) -> dict[str, Any]:
            child.send({"nonce": self._nonce, **message}, self.budget.deadline)
            return {}

        return self._guarded(send)

    def _hear(self) -> dict[str, Any]:
        return self._guarded(self._answer)

    def _answer(self, child: Child) -> dict[str, Any]:
        answer = self.budget.wait(child, child.receive)
        if answer.get("nonce") != self._nonce:
            raise ChildGone("the program sent an answer that was not requested")
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
        outcome.record(number, passed, words(answer["error"]) if "error" in answer else "wrong value")
        if all_or_nothing and not passed:
            return


def _run_asserts(judge: Child, program: _Program, tests: AssertTests, outcome: Outcome, all_or_nothing: bool) -> bool:
    """Let the judge run the tests in a sandbox of its own, and forward its calls to the program, as plain data both
    ways. Returns whether the tests ran to the end without an error."""
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
                _forward(judge, program.call(said["call"], said["args"], said["kwargs"]), program.budget.deadline + 1)
            elif "result" in said:
                number, passed, why = said["result"]
                outcome.record(number, passed, why or "the assert does not hold")
                program.budget.next_test()
                if all_or_nothing and not passed:
                    return False
                if program.over():
                    outcome.failures.append("timed out")
                    return False
            else:
                outcome.unusable = said.get("unusable", "")
                if said.get("problem") and tests.recorded:
                    outcome.failures.append(f"the tests stopped with an error: {said['problem']}")
                return not said.get("problem")
    except TimeoutError:
        outcome.failures.append("timed out")
    except ChildGone as error:
        outcome.failures.append(f"the tests did not finish: {judge.close() or error}")
    except wire.NotPlain as error:
        outcome.unusable = str(error)
    return False


def _forward(judge: Child, answer: dict[str, Any], deadline: float) -> None:
    try:
        judge.send(answer, deadline)
    except wire.NotPlain as error:  # caused by the program, like its other errors
        judge.send({"error": ["TooLarge", str(error)]}, deadline)
