"""The built-in reward `code`: runs a completion's program in a sandbox and compares its values outside of it."""

from __future__ import annotations

import functools
import math
import pickle
import re
import sys
import threading
import time
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from ouro_rl.core.benchmarks import TEST_COLUMNS
from ouro_rl.core.errors import UserError
from rewards.code_grader.forms import ROW_COLUMNS, TestsUnusable, read_tests, row_limits
from rewards.code_grader.kinds import AssertTests, CaseTests, RowLimits, Tests
from rewards.code_grader.program import Program, Wanted, find_program
from rewards.code_grader.time_budget import PATIENCE, Times
from rewards.messages import content_of, text_of
from rewards.processes.pool import ProcessPool, Reply
from rewards.sandbox.inside.confine import Limits
from rewards.sandbox.ladder import choose_rung, describe
from rewards.verdict import Status, Verdict

_GRACE_S = 15.0
"""Seconds beyond a program's own time limit within which its worker must answer."""
_CACHE_SIZE = 4096
_CAUSES: dict[str, Status] = {"MemoryError": "memory", "TooLarge": "limit"}
"""Kinds of errors with a status of their own, though they are the program's: it fails the test."""
_FIRST_NAME = re.compile(r"^\w+")


class CodeReward:
    """The fraction of tests that the completion's program passes in a sandbox.

    Callable with TRL's signature; None = could not be scored."""

    __name__ = "code"
    wants = ("prompts",)
    """Needed besides the data set's columns, since a prompt that is code is the start of the program (HumanEval)."""

    def __init__(
        self,
        *,
        workers: int = 1,
        timeout_s: float = 10.0,
        test_timeout_s: float = 8.0,
        memory_mb: int = 512,
        tmp_mb: int = 16,
        all_or_nothing: bool = False,
        thinking: bool = False,
        packages: Sequence[str] = (),
        allow_unsafe_code: bool = False,
    ) -> None:
        """timeout_s: seconds per program with all its tests; test_timeout_s: seconds per test. A program that takes
        longer fails the tests it has not passed by then; `time_budget` extends the limits on a busy machine.
        memory_mb: address space of the program in MiB; tmp_mb: size of its /tmp in MiB. all_or_nothing: 1.0 if every
        test passes, else 0.0. thinking: the prompt opens the thought. packages: installed packages that programs and
        tests may import, such as numpy.

        Prints the chosen sandbox. Raises UserError if there is none, unless `allow_unsafe_code`."""
        if not 0 < test_timeout_s or not 0 < timeout_s or memory_mb < 64 or tmp_mb < 1:
            raise UserError(
                "reward 'code': timeout_s and test_timeout_s must be > 0, memory_mb >= 64 and tmp_mb >= 1 "
                f"(got {timeout_s:g}, {test_timeout_s:g}, {memory_mb} and {tmp_mb})"
            )
        command = choose_rung(allow_unsafe_code=allow_unsafe_code, packages=packages)
        _announce(describe(command))
        self.rung = command.rung
        limits = Limits(memory_mb=memory_mb, seconds=math.ceil(timeout_s) + 1, tasks=256, tmp_mb=tmp_mb)
        times = Times(test_s=test_timeout_s, program_s=timeout_s)
        arguments = {"command": command, "limits": limits, "times": times, "all_or_nothing": all_or_nothing}
        self._pool = ProcessPool(
            "rewards.code_grader.worker:make_handler",
            arguments,
            workers=workers,
            timeout_s=PATIENCE * timeout_s + _GRACE_S,
        )
        self._all_or_nothing, self._thinking, self._packages = all_or_nothing, thinking, frozenset(packages)
        self._cache: OrderedDict[tuple[str, bytes], Verdict] = OrderedDict()
        self._lock = threading.Lock()

    def __call__(self, completions: Sequence[Any], **columns: Any) -> list[float | None]:
        """Score completions (strings or conversations) against the column `tests`; see `forms.read_tests`."""
        return [verdict.value for verdict in self.verdicts(completions, columns)]

    def verdicts(self, completions: Sequence[Any], columns: Mapping[str, Any]) -> list[Verdict]:
        """Like `__call__`, with the reasons. Raises UserError if there is no column of tests."""
        if not any(columns.get(name) is not None for name in TEST_COLUMNS):
            raise UserError(
                "reward 'code' needs a column `tests` (or `test_list`, or `test` with `entry_point`) in the data set, "
                f"which has {', '.join(sorted(columns)) or 'none'}: rename the column of the tests"
            )
        columns = {**columns, "prompt": columns.get("prompt", columns.get("prompts"))}
        given = {name: columns[name] for name in ROW_COLUMNS if columns.get(name) is not None}
        jobs = [
            self._read(text_of(completion), {name: column[i] for name, column in given.items()})
            for i, completion in enumerate(completions)
        ]
        return self._decide(jobs)

    def _read(self, completion: str, row: dict[str, Any]) -> Verdict | _Job:
        """The program and tests to run, or a verdict if nothing needs to run."""
        started = time.perf_counter()
        row["prompt"] = _prompt_text(row.get("prompt"))
        try:
            key = pickle.dumps(row)
            found = _tests(key, self._packages)
        except (pickle.PicklingError, TypeError, AttributeError, RecursionError) as error:  # a function, say
            found = f"the tests are not plain data: {error}"
        if isinstance(found, str):
            return Verdict(value=None, status="gold_unparsable", detail=found)
        tests, limits = found
        program = find_program(completion, _wanted(tests, row), thinking=self._thinking)
        if program is None:
            return Verdict(value=0.0, status="no_answer", ms=1000 * (time.perf_counter() - started))
        return _Job(program, key, tests, limits)

    def _decide(self, jobs: list[Verdict | _Job]) -> list[Verdict]:
        """Run each distinct program once, and return the verdicts in order."""
        waiting = {job.key: job for job in jobs if isinstance(job, _Job)}
        with self._lock:
            known = {key: self._cache[key] for key in waiting if key in self._cache}
        new = [job for key, job in waiting.items() if key not in known]
        replies = self._pool.run([{"program": job.program, "tests": job.tests, "limits": job.limits} for job in new])
        for job, reply in zip(new, replies, strict=True):
            known[job.key] = verdict = self._verdict(reply)
            if reply.status == "ok" and "timed out" not in verdict.detail:  # the machine may have been busy
                self._remember(job.key, verdict)
        return [replace(known[job.key], extracted=job.code) if isinstance(job, _Job) else job for job in jobs]

    def _remember(self, key: tuple[str, bytes], verdict: Verdict) -> None:
        with self._lock:
            self._cache[key] = verdict
            if len(self._cache) > _CACHE_SIZE:
                self._cache.popitem(last=False)

    def _verdict(self, reply: Reply) -> Verdict:
        if reply.status != "ok":
            return Verdict(value=None, status=reply.status, detail=reply.detail, ms=reply.ms)
        passed, count = reply.value["passed"], reply.value["count"]
        if reply.value["unusable"]:
            return Verdict(value=None, status="gold_unparsable", detail=reply.value["unusable"], ms=reply.ms)
        if passed == count:
            return Verdict(value=1.0, status="correct", ms=reply.ms)
        detail = "; ".join([f"{passed} of {count} tests passed", *reply.value["failures"]])
        value = 0.0 if self._all_or_nothing else passed / count
        causes = [status for cause, status in _CAUSES.items() if cause in reply.value["causes"]]
        status: Status = causes[0] if causes else "wrong"
        return Verdict(value=value, status=status, detail=detail, ms=reply.ms)

    def close(self) -> None:
        """End the workers and their sandboxes."""
        self._pool.close()


class _Job:
    """One program and its tests."""

    def __init__(self, program: Program, tests_key: bytes, tests: Tests, limits: RowLimits) -> None:
        self.limits = limits
        self.program, self.code, self.tests = program.source, program.code, tests
        self.key = (program.source, tests_key)


def _wanted(tests: Tests, row: Mapping[str, Any]) -> Wanted:
    """What the tests need, by which the program is recognized among the blocks of a completion."""
    entry_point = row.get("entry_point")
    if isinstance(tests, AssertTests):
        names = list(tests.names.values())
    else:
        names = [tests.entry_point] if isinstance(tests, CaseTests) else []
    return Wanted(
        names=frozenset(name for whole in names for name in _FIRST_NAME.findall(whole)),
        reads=not isinstance(tests, AssertTests | CaseTests) and any(run.stdin.strip() for run in tests.runs),
        prompt=row["prompt"],
        entry_point=entry_point if isinstance(entry_point, str) else None,
    )


@functools.lru_cache(maxsize=1024)
def _tests(key: bytes, packages: frozenset[str]) -> tuple[Tests, RowLimits] | str:
    """Tests and limits of a row (pickled by `_read`), parsed once for all completions of a prompt; or why
    they cannot be used."""
    row = pickle.loads(key)
    try:
        return read_tests(row, packages), row_limits(row)
    except TestsUnusable as error:
        return str(error)


@functools.cache
def _announce(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _prompt_text(prompt: Any) -> str:
    """The text of a prompt, or of a conversation's last message."""
    if isinstance(prompt, str):
        return prompt
    return content_of(prompt[-1]) if prompt else ""
