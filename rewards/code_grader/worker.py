"""The reward `code` in a worker of the process pool: one sandbox that runs one program after another."""

from __future__ import annotations

import atexit
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from rewards.code_grader.kinds import RowLimits
from rewards.code_grader.runner import Job, Outcome, run
from rewards.code_grader.time_budget import Times
from rewards.sandbox.host import Command, Sandbox, SandboxError
from rewards.sandbox.inside.confine import Limits

_INTERPRETER_MB = 64
"""Address space of the interpreter, which a row's limit does not include."""


def make_handler(
    command: Command, limits: Limits, times: Times, all_or_nothing: bool
) -> Callable[[dict[str, Any]], dict[str, Any]]:
    """Starts the sandbox and returns the handler that runs one program in it. Raises RuntimeError if the sandbox does
    not start."""
    sandbox = Sandbox(command, limits)
    try:
        sandbox.start()
    except SandboxError as error:
        raise RuntimeError(f"reward 'code': the sandbox {command.rung} does not start: {error}") from error
    atexit.register(sandbox.close)

    def handle(item: dict[str, Any]) -> dict[str, Any]:
        row: RowLimits = item["limits"]
        job = Job(
            program=item["program"],
            tests=item["tests"],
            times=times if row.test_s is None else replace(times, test_s=row.test_s),
            memory_mb=None if row.memory_mb is None else row.memory_mb + _INTERPRETER_MB,
            all_or_nothing=all_or_nothing,
        )
        try:
            outcome = run(sandbox, job)
        except SandboxError:  # retry once in a new sandbox
            sandbox.close()
            outcome = run(sandbox, job)
        return _plain(outcome)

    return handle


def _plain(outcome: Outcome) -> dict[str, Any]:
    return {
        "passed": len(outcome.passed),
        "count": outcome.count,
        "failures": outcome.failures[:1],
        "unusable": outcome.unusable,
        "causes": sorted(outcome.causes),
    }
