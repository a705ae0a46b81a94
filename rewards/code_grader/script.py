"""Runs a program as a script: feeds it stdin, collects its stdout, and compares that with the expected output."""

from __future__ import annotations

import functools
import os
import secrets
import select
import time
from typing import Any

from rewards.code_grader.compare import same_output
from rewards.code_grader.forms import ScriptTest
from rewards.code_grader.time_budget import Budget
from rewards.sandbox.host import Child, ChildGone, Sandbox
from rewards.sandbox.inside import wire

_OUTPUT = 1 << 20
"""Number of bytes that a script may print beyond the expected output."""


def run_script(sandbox: Sandbox, program: str, test: ScriptTest, budget: Budget) -> str:
    """Run a program on a test's stdin. Returns why it fails the test; empty if it passes. Raises SandboxError."""
    stdout_read, stdout_write = os.pipe()
    try:
        stdin = _input_file(test.stdin.encode(errors="replace"))
        try:
            child = sandbox.child("candidate", files=(stdin, stdout_write))
        finally:
            os.close(stdin)
            os.close(stdout_write)
        with child:
            nonce = secrets.token_hex(8)
            child.wait_until_confined()
            child.send({"nonce": nonce, "program": program, "script": True}, budget.deadline)
            limit = len(test.stdout.encode()) + _OUTPUT
            output = _collect(child, stdout_read, limit, budget)
            answer = budget.wait(child, child.receive)
            if answer.get("nonce") != nonce:
                return "the program sent an answer that was not requested"
            answer = checked(answer)
            if "error" in answer:
                return words(answer["error"])
    except TimeoutError:
        return "timed out"
    except ChildGone as error:
        return str(error)
    except wire.NotPlain as error:
        return str(error)
    finally:
        os.close(stdout_read)
    return "" if same_output(output.decode(errors="replace"), test.stdout, test.tolerance) else "wrong output"


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
                raise ChildGone(f"more than {limit} bytes of output")
        elif child.fd in ready:  # the program has ended, and the pipe with its output is empty
            return bytes(output)


def _ready(poll: select.poll, deadline: float) -> dict[int, int]:
    ready = dict(poll.poll(max(0.0, 1000 * (deadline - time.monotonic()))))
    if not ready:
        raise TimeoutError
    return ready


def checked(answer: dict[str, Any]) -> dict[str, Any]:
    """The valid parts of an answer. Raises ChildGone if a required part is missing or has a wrong type."""
    error = answer.get("error")
    if error is not None:
        if type(error) is not list or len(error) != 2 or not all(type(part) is str for part in error):
            raise ChildGone("a malformed answer")
        return {"error": [part[:300] for part in error]}
    if "ok" not in answer:
        raise ChildGone("a malformed answer")
    changed = answer.get("changed")
    reported = answer["ok"] is None and type(changed) is list  # see `candidate`: other values come without changes
    return {"ok": answer["ok"], **({"changed": changed} if reported else {})}


def words(error: list[str]) -> str:
    """An error [kind, text] as one string."""
    return error[1] if error[0] in ("TimedOut", "ProgramEnded") else f"{error[0]}: {error[1]}".rstrip(": ")
