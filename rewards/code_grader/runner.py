"""Runs one program against one set of tests in a sandbox. The results are decided here, outside of the sandbox: a
program only sends values, and a missing answer is a failure."""

from __future__ import annotations

import contextlib
import random
from dataclasses import dataclass, field
from typing import Any

from rewards.code_grader.checker import Checker
from rewards.code_grader.compare import DECIMALS, same_output, same_value
from rewards.code_grader.kinds import AssertTests, Case, CaseTests, ScriptTests, Tests
from rewards.code_grader.script import run_script
from rewards.code_grader.session import Session, words
from rewards.code_grader.time_budget import Budget, Times
from rewards.sandbox.host import Child, ChildGone, Sandbox
from rewards.sandbox.inside import values, wire

_FORWARD_S = 1.0
"""Seconds beyond a program's deadline within which the judge takes an answer."""


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
    causes: set[str] = field(default_factory=set)
    """Kinds of the errors that the program raised, or that the sandbox raised for it."""

    def record(self, test: int, passed: bool, why: str = "") -> None:
        """Record a result. A later failure of a test overrides its success."""
        if passed:
            self.passed.add(test)
        else:
            self.passed.discard(test)
            self.failures.append(f"test {test + 1} of {self.count}: {why}")


@dataclass(frozen=True, kw_only=True)
class Job:
    """One program, its tests, and how to run them."""

    program: str
    tests: Tests
    times: Times
    memory_mb: int | None
    """MiB of memory; None = the sandbox's."""
    all_or_nothing: bool
    """Stop at the first failure."""


def run(sandbox: Sandbox, job: Job) -> Outcome:
    """Run the tests in random order. Raises SandboxError."""
    budget = Budget(job.times)
    tests, outcome = job.tests, Outcome(count=job.tests.count)
    with contextlib.ExitStack() as stack:
        if isinstance(tests, ScriptTests):
            _run_scripts(sandbox, job, tests, outcome, budget)
            return outcome
        names = list(tests.names.values()) if isinstance(tests, AssertTests) else []
        running = stack.enter_context(Session(sandbox, job.program, budget, names, job.memory_mb))
        running.begin()
        judge = stack.enter_context(sandbox.child("judge")) if isinstance(tests, AssertTests) else None
        running.finish_loading()
        if running.broken:
            outcome.failures.append(running.broken)
        elif isinstance(tests, CaseTests):
            _run_cases(sandbox, running, tests, outcome, job.all_or_nothing)
        else:
            assert judge is not None
            if not _run_asserts(judge, running, tests, outcome, job.all_or_nothing) and tests.recorded:
                # The run was cut short: an assert in a loop may still have failed later, and the code after the last
                # assert belongs to that test.
                outcome.passed -= tests.repeated | {tests.count - 1}
        outcome.causes |= running.causes
    return outcome


def _run_scripts(sandbox: Sandbox, job: Job, tests: ScriptTests, outcome: Outcome, budget: Budget) -> None:
    with Checker(sandbox, tests.checker, budget) as checker:
        for number in _shuffled(tests.count):
            budget.next_test()
            test = tests.runs[number]
            printed, error = run_script(sandbox, job.program, test, budget, job.memory_mb)
            if error:
                outcome.causes.add(error[0])
                why = words(error)
            elif checker.own:
                why = "" if checker.accepts(test.stdin, printed, test.stdout) else "wrong output"
            else:
                why = "" if same_output(printed, test.stdout, test.tolerance, tests.checker) else "wrong output"
            outcome.record(number, not why, why)
            outcome.unusable = checker.problem
            if outcome.unusable or (why and job.all_or_nothing) or budget.over():
                return


def _shuffled(count: int) -> list[int]:
    return random.SystemRandom().sample(range(count), count)


def _run_cases(sandbox: Sandbox, program: Session, tests: CaseTests, outcome: Outcome, all_or_nothing: bool) -> None:
    with Checker(sandbox, tests.checker, program.budget) as checker:
        for number in _shuffled(tests.count):
            if program.over():
                outcome.failures.append("timed out")
                return
            case = tests.cases[number]
            program.budget.next_test()
            arguments = {"args": list(case.args), "kwargs": dict(case.kwargs)}
            answer = program.ask({"do": "name", "name": tests.entry_point, **arguments})
            if "error" in answer:
                passed, why = False, words(answer["error"])
            else:
                passed, why = _is_right(answer["ok"], case, checker), "wrong value"
            outcome.record(number, passed, why)
            outcome.unusable = checker.problem
            if outcome.unusable or (all_or_nothing and not passed):
                return


def _is_right(got: Any, case: Case, checker: Checker) -> bool:
    if checker.own:
        return checker.accepts_value(list(case.args), got, values.encode(case.expected))
    if case.loose:
        return any(same_value(got, right, DECIMALS) for right in (case.expected, case.or_else))
    return same_value(got, case.expected, case.tolerance)


def _run_asserts(judge: Child, program: Session, tests: AssertTests, outcome: Outcome, all_or_nothing: bool) -> bool:
    """Let the judge run the tests in a sandbox of its own, and forward its questions to the program. Returns whether
    the tests ran to the end without an error."""
    bindings = zip(tests.names.items(), program.bindings, strict=True)
    request = {
        "setup": tests.setup,
        "names": {name: [own_name, found] for (name, own_name), found in bindings},
        "classes": sorted(tests.classes),
        "tests": [[number, tests.sources[number]] for number in _shuffled(len(tests.sources))],
        "recorded": tests.recorded,
    }
    try:
        judge.send(request, program.budget.deadline)
        program.budget.next_test()
        said = _serve(judge, program, outcome, all_or_nothing)
    except TimeoutError:
        outcome.failures.append("timed out")
    except ChildGone as error:
        outcome.failures.append(f"the tests did not finish: {judge.close() or error}")
    except wire.NotPlain as error:
        if not _fits({**request, "names": {}}):
            outcome.unusable = str(error)
        else:  # what the program defines under a name of the tests, so it must not go unscored
            outcome.causes.add("TooLarge")
            outcome.failures.append(f"what the program defines cannot be passed: {error}")
    else:
        outcome.unusable = said.get("unusable", "")
        if said.get("problem") and tests.recorded:
            outcome.failures.append(f"the tests stopped with an error: {said['problem']}")
        return "end" in said and not said.get("problem")
    return False


def _fits(request: dict[str, Any]) -> bool:
    try:
        wire.pack(request)
    except wire.NotPlain:
        return False
    return True


def _serve(judge: Child, program: Session, outcome: Outcome, all_or_nothing: bool) -> dict[str, Any]:
    """Forward the judge's questions and record its results, until it says something else: that it is done, what a
    function of the tests returns, or that the tests cannot be used. An empty message if the run is to stop."""

    def callback(call: dict[str, Any]) -> dict[str, Any]:
        _forward(judge, call, program.budget.deadline + _FORWARD_S)
        said = _serve(judge, program, outcome, all_or_nothing)
        if "returned" in said or "error" in said:
            return said
        raise _Ended(said)

    while True:
        said = program.budget.wait(judge, judge.receive)
        if "do" in said:
            try:
                _forward(judge, program.ask(said, callback), program.budget.deadline + _FORWARD_S)
            except _Ended as ended:
                return ended.said
        elif "result" in said:
            number, passed, why = said["result"]
            outcome.record(number, passed, why or "the assert does not hold")
            program.budget.next_test()
            if all_or_nothing and not passed:
                return {}
            if program.over():
                outcome.failures.append("timed out")
                return {}
        else:
            return said


class _Ended(Exception):
    """The judge ended while a function of the tests ran."""

    def __init__(self, said: dict[str, Any]) -> None:
        super().__init__()
        self.said = said


def _forward(judge: Child, answer: dict[str, Any], deadline: float) -> None:
    try:
        judge.send(answer, deadline)
    except wire.NotPlain as error:  # caused by the program, like its other errors
        judge.send({"error": ["TooLarge", str(error)]}, deadline)
