"""The reward `code` in a worker of the process pool: one sandbox that runs one program after another."""

from __future__ import annotations

import atexit
from collections.abc import Callable
from typing import Any

from rewards.code_grader.runner import Outcome, run
from rewards.code_grader.time_budget import Times
from rewards.sandbox.host import Command, Sandbox, SandboxError
from rewards.sandbox.inside.confine import Limits


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
        try:
            outcome = run(sandbox, item["program"], item["tests"], times, all_or_nothing=all_or_nothing)
        except SandboxError:  # retry once in a new sandbox
            sandbox.close()
            outcome = run(sandbox, item["program"], item["tests"], times, all_or_nothing=all_or_nothing)
        return _plain(outcome)

    return handle


def _plain(outcome: Outcome) -> dict[str, Any]:
    return {
        "passed": len(outcome.passed),
        "count": outcome.count,
        "failures": outcome.failures[:1],
        "unusable": outcome.unusable,
    }
