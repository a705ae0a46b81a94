"""Runs one program against one set of tests in a sandbox. The verdict is made here, outside: what a program sends are values,
and no answer is a fail."""

from __future__ import annotations

import contextlib
import os
import random
import secrets
import select
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from rewards.code_compare import same_output, same_value
from rewards.code_tasks import AssertTests, CaseTests, ScriptTest, ScriptTests, Tests
from rewards.sandbox.host import Child, ChildGone, Sandbox
from rewards.sandbox.inside import wire

_OUTPUT = 1 << 20
"""Bytes that a script may print beyond what is expected of it."""


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


@dataclass(frozen=True, kw_only=True)
class Times:
    """Seconds of wall time."""

    test_s: float
    """For one test; loading the program counts as one."""
    program_s: float
    """For a program with all its tests."""


def run(sandbox: Sandbox, program: str, tests: Tests, times: Times, *, all_or_nothing: bool) -> Outcome:
    """Run the tests in random order. all_or_nothing: stop at the first that fails. Raises SandboxError."""
    end = time.monotonic() + times.program_s
    outcome = Outcome(count=tests.count)
    if isinstance(tests, ScriptTests):
        for number in _shuffled(tests.count):
            deadline = min(end, time.monotonic() + times.test_s)
            why = run_script(sandbox, program, tests.runs[number], deadline)
            outcome.record(number, not why, why)
            if (why and all_or_nothing) or time.monotonic() >= end:
                break
        return outcome
    with _Program(sandbox, program, times.test_s, end) as running, contextlib.ExitStack() as stack:
        running.begin()
        judge = stack.enter_context(sandbox.child("judge")) if isinstance(tests, AssertTests) else None
        running.finish_loading()
        if running.broken:
            outcome.failures.append(running.broken)
        elif isinstance(tests, CaseTests):
            _run_cases(running, tests, outcome, all_or_nothing)
        else:
            assert judge is not None
            _run_asserts(judge, running, tests, outcome, all_or_nothing)
    return outcome


def _shuffled(count: int) -> list[int]:
    return random.SystemRandom().sample(range(count), count)


class _Program:
    """A program in its sandbox, started again when a call has ended it."""

    def __init__(self, sandbox: Sandbox, source: str, test_s: float, end: float) -> None:
        self._sandbox, self._source, self._test_s, self._end = sandbox, source, test_s, end
        self._child: Child | None = None
        self._test_deadline = end
        self._nonce = ""
        self._problem: dict[str, Any] = {}
        self.broken = ""
        """Why the program cannot be loaded; empty when it can."""

    def next_test(self) -> None:
        """A new test begins: its time counts from now."""
        self._test_deadline = min(self._end, time.monotonic() + self._test_s)

    @property
    def deadline(self) -> float:
        return self._test_deadline

    @property
    def over(self) -> bool:
        return time.monotonic() >= self._end

    def begin(self) -> None:
        """Start the program anew, without waiting for it to be loaded."""
        self.next_test()
        self._child = self._sandbox.child("candidate")
        self._problem = self._tell({"program": self._source, "script": False})

    def finish_loading(self) -> None:
        """Sets `broken` when the program cannot be loaded."""
        answer = self._problem or self._hear()
        if "error" in answer:
            self.broken = "loading the program: " + _words(answer["error"])

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
        return self._guarded(lambda child: child.send({"nonce": self._nonce, **message}, self._test_deadline) or {})

    def _hear(self) -> dict[str, Any]:
        return self._guarded(self._answer)

    def _answer(self, child: Child) -> dict[str, Any]:
        answer = child.receive(self._test_deadline)
        if answer.get("nonce") != self._nonce:
            raise ChildGone("an answer to no question")
        return _checked(answer)

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


def _checked(answer: dict[str, Any]) -> dict[str, Any]:
    """The parts of an answer that mean something, of the right types."""
    error = answer.get("error")
    if error is not None:
        if type(error) is not list or len(error) != 2 or not all(type(part) is str for part in error):
            raise ChildGone("a garbled answer")
        return {"error": [part[:300] for part in error]}
    if "ok" not in answer:
        raise ChildGone("a garbled answer")
    changed = answer.get("changed")
    return {"ok": answer["ok"], **({"changed": changed} if type(changed) is list else {})}


def _words(error: list[str]) -> str:
    return error[1] if error[0] in ("TimedOut", "ProgramEnded") else f"{error[0]}: {error[1]}".rstrip(": ")


def _run_cases(program: _Program, tests: CaseTests, outcome: Outcome, all_or_nothing: bool) -> None:
    for number in _shuffled(tests.count):
        if program.over:
            outcome.failures.append("timed out")
            return
        case = tests.cases[number]
        program.next_test()
        answer = program.call(tests.entry_point, list(case.args), dict(case.kwargs))
        passed = "ok" in answer and same_value(answer["ok"], case.expected, case.tolerance)
        outcome.record(number, passed, _words(answer["error"]) if "error" in answer else "another value")
        if all_or_nothing and not passed:
            return


def _run_asserts(judge: Child, program: _Program, tests: AssertTests, outcome: Outcome, all_or_nothing: bool) -> None:
    """The judge runs the tests in a sandbox of its own; its calls are passed on to the program, as data both ways."""
    order = _shuffled(len(tests.sources))
    request = {
        "setup": tests.setup,
        "names": tests.names,
        "tests": [[number, tests.sources[number]] for number in order],
        "recorded": tests.recorded,
    }
    try:
        judge.send(request, program.deadline)
        program.next_test()
        while True:
            said = judge.receive(program.deadline)
            if "call" in said:
                judge.send(program.call(said["call"], said["args"], said["kwargs"]), program.deadline + 1)
            elif "result" in said:
                number, passed, why = said["result"]
                outcome.record(number, passed, why or "it does not hold")
                program.next_test()
                if (all_or_nothing and not passed) or program.over:
                    return
            else:
                outcome.unusable = said.get("unusable", "")
                if said.get("problem") and tests.recorded:
                    outcome.failures.append(f"the tests could not go on: {said['problem']}")
                return
    except TimeoutError:
        outcome.failures.append("timed out")
    except ChildGone as error:
        outcome.failures.append(f"the tests did not come to their end: {judge.close() or error}")
    except wire.NotPlain as error:
        outcome.unusable = str(error)


# --- scripts -----------------------------------------------------------------------------------------------------------


def run_script(sandbox: Sandbox, program: str, test: ScriptTest, deadline: float) -> str:
    """Run a program on a text; why it fails the test, empty when it passes. Raises SandboxError."""
    stdin_read, stdin_write = os.pipe()
    stdout_read, stdout_write = os.pipe()
    try:
        try:
            child = sandbox.child("candidate", files=(stdin_read, stdout_write))
        finally:
            os.close(stdin_read)
            os.close(stdout_write)
        with child:
            nonce = secrets.token_hex(8)
            child.wait_until_confined()
            child.send({"nonce": nonce, "program": program, "script": True}, deadline)
            limit = len(test.stdout.encode()) + _OUTPUT
            stdin, stdin_write = stdin_write, -1
            output = _converse(child, stdin, test.stdin.encode(), stdout_read, limit, deadline)
            answer = child.receive(deadline)
            if answer.get("nonce") != nonce:
                return "an answer to no question"
            answer = _checked(answer)
            if "error" in answer:
                return _words(answer["error"])
    except TimeoutError:
        return "timed out"
    except ChildGone as error:
        return str(error)
    except wire.NotPlain as error:
        return str(error)
    finally:
        for fd in (stdin_write, stdout_read):
            if fd >= 0:
                os.close(fd)
    return "" if same_output(output.decode(errors="replace"), test.stdout, test.tolerance) else "another output"


def _converse(child: Child, stdin: int, data: bytes, stdout: int, limit: int, deadline: float) -> bytes:
    """Feed a text and collect what is printed, until the child has said on its channel how it ended."""
    os.set_blocking(stdin, False)
    os.set_blocking(stdout, False)
    view, output, open_end = memoryview(data), bytearray(), True
    try:
        while True:
            poll = select.poll()
            poll.register(child.fd, select.POLLIN)
            if open_end:
                poll.register(stdout, select.POLLIN)
            if stdin >= 0:
                poll.register(stdin, select.POLLOUT)
            ready = dict(poll.poll(max(0.0, 1000 * (deadline - time.monotonic()))))
            if not ready:
                raise TimeoutError
            if stdin in ready:
                try:
                    view = view[os.write(stdin, view[: 1 << 16]) :]
                except BrokenPipeError:  # it reads no further
                    view = view[:0]
                if not view:
                    os.close(stdin)
                    stdin = -1
            if stdout in ready:
                part = os.read(stdout, 1 << 16)
                open_end = bool(part)
                output += part
                if len(output) > limit:
                    raise ChildGone(f"more than {limit} bytes of output")
            elif child.fd in ready:  # all that was printed before is in the pipe, and the pipe is empty
                return bytes(output)
    finally:
        if stdin >= 0:
            os.close(stdin)
