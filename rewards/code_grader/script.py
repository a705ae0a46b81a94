"""Runs a program as a script: feeds it stdin, collects its stdout, and compares that with the expected output."""

from __future__ import annotations

import functools
import os
import secrets
import select
import time

from rewards.code_grader.kinds import ScriptTest
from rewards.code_grader.session import checked
from rewards.code_grader.time_budget import Budget
from rewards.sandbox.host import ENDED_WELL, Child, ChildGone, Sandbox
from rewards.sandbox.inside import wire

_OUTPUT = 1 << 24
"""Number of bytes that a script may print beyond the expected output."""


def run_script(
    sandbox: Sandbox, program: str, test: ScriptTest, budget: Budget, memory_mb: int | None
) -> tuple[str, list[str]]:
    """Run a program on a test's stdin. Returns what it printed, and why it did not come to its end: [kind, text], or
    nothing. Raises SandboxError."""
    stdout_read, stdout_write = os.pipe()
    try:
        stdin = _input_file(test.stdin.encode(errors="replace"))
        try:
            child = sandbox.child("candidate", files=(stdin, stdout_write), memory_mb=memory_mb)
        finally:
            os.close(stdin)
            os.close(stdout_write)
        with child:
            nonce = secrets.token_hex(8)
            child.wait_until_confined()
            child.send({"nonce": nonce, "program": program, "script": True}, budget.deadline)
            limit = len(test.stdout.encode()) + _OUTPUT
            output = _collect(child, stdout_read, limit, budget)
            try:
                answer = budget.wait(child, child.receive)
            except ChildGone:  # by `os._exit`, or it died
                if child.close() != ENDED_WELL:
                    raise
                answer = {"nonce": nonce, "ok": None}
            if answer.get("nonce") != nonce:
                raise ChildGone("the program sent an answer that was not requested")
            answer = checked(answer)
            return output.decode(errors="replace"), answer.get("error", [])
    except TimeoutError:
        return "", ["TimedOut", "timed out"]
    except ChildGone as error:
        return "", ["ProgramEnded", str(error)]
    except wire.NotPlain as error:
        return "", ["TooLarge", str(error)]
    finally:
        os.close(stdout_read)


def _input_file(data: bytes) -> int:
    """A descriptor of a file in memory with this content, for reading only: programs ask for the size of their input,
    seek in it, or map it."""
    writable = os.memfd_create("stdin", os.MFD_CLOEXEC)
    try:
        with open(writable, "wb", closefd=False) as file:
            file.write(data)
        return os.open(f"/proc/self/fd/{writable}", os.O_RDONLY | os.O_CLOEXEC)
    finally:
        os.close(writable)


def _collect(child: Child, stdout: int, limit: int, budget: Budget) -> bytes:
    """The script's output, when the child has reported on its channel how it ended. Raises ChildGone if it prints more
    than `limit` bytes, and TimeoutError."""
    os.set_blocking(stdout, False)
    output, open_end = bytearray(), True
    while True:
        poll = select.poll()
        poll.register(child.fd, select.POLLIN)
        if open_end:
            poll.register(stdout, select.POLLIN)
        ready = budget.wait(child, functools.partial(_ready, poll))
        if stdout in ready:
            part = os.read(stdout, 1 << 16)
            open_end = bool(part)
            output += part
            if len(output) > limit:
                raise wire.NotPlain(f"more than {limit} bytes of output")
        elif child.fd in ready:  # the program has ended, and the pipe with its output is empty
            return bytes(output)


def _ready(poll: select.poll, deadline: float) -> dict[int, int]:
    ready = dict(poll.poll(max(0.0, 1000 * (deadline - time.monotonic()))))
    if not ready:
        raise TimeoutError
    return ready
