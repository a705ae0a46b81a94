"""Runs a program as a script: a text goes in, what it prints comes out, and is compared here."""

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
"""Bytes that a script may print beyond what is expected of it."""


def run_script(sandbox: Sandbox, program: str, test: ScriptTest, budget: Budget) -> str:
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
            child.send({"nonce": nonce, "program": program, "script": True}, budget.deadline)
            limit = len(test.stdout.encode()) + _OUTPUT
            stdin, stdin_write = stdin_write, -1
            output = _converse(child, stdin, test.stdin.encode(), stdout_read, limit, budget)
            answer = budget.wait(child, child.receive)
            if answer.get("nonce") != nonce:
                return "an answer to no question"
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
        for fd in (stdin_write, stdout_read):
            if fd >= 0:
                os.close(fd)
    return "" if same_output(output.decode(errors="replace"), test.stdout, test.tolerance) else "another output"


def _converse(child: Child, stdin: int, data: bytes, stdout: int, limit: int, budget: Budget) -> bytes:
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
            ready = budget.wait(child, functools.partial(_ready, poll))
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


def _ready(poll: select.poll, deadline: float) -> dict[int, int]:
    ready = dict(poll.poll(max(0.0, 1000 * (deadline - time.monotonic()))))
    if not ready:
        raise TimeoutError
    return ready


def checked(answer: dict[str, Any]) -> dict[str, Any]:
    """The parts of an answer that mean something, of the right types."""
    error = answer.get("error")
    if error is not None:
        if type(error) is not list or len(error) != 2 or not all(type(part) is str for part in error):
            raise ChildGone("a garbled answer")
        return {"error": [part[:300] for part in error]}
    if "ok" not in answer:
        raise ChildGone("a garbled answer")
    changed = answer.get("changed")
    told = (
        answer["ok"] is None and type(changed) is list
    )  # of other values the driver tells no changes: see `candidate`
    return {"ok": answer["ok"], **({"changed": changed} if told else {})}


def words(error: list[str]) -> str:
    return error[1] if error[0] in ("TimedOut", "ProgramEnded") else f"{error[0]}: {error[1]}".rstrip(": ")
