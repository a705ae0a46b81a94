"""Drives a model's program in the same process: loads it and answers questions about its objects, or runs it as a
script.

The program can tamper with all of this code. That is safe, since only data leaves the process, and the comparison
happens elsewhere."""

from __future__ import annotations

import os
from typing import Any

from . import surroundings, wire
from .objects import Objects, describe


def main(channel: int) -> None:
    """Load the program in the first message, then answer calls until the host closes the channel."""
    request = wire.receive(channel)
    if request is None:
        return
    script = request["script"]
    module = surroundings.make_module("__main__" if script else "solution", request["program"])
    objects = Objects(channel, module, request.get("first", 0))
    try:
        if script:
            surroundings.open_standard_streams()
        if request.get("prelude"):
            exec(compile(request["prelude"], "<prelude>", "exec"), module.__dict__)
        exec(compile(request["program"], str(module.__file__), "exec"), module.__dict__)
        if script:
            surroundings.finish()
        answer: dict[str, Any] = {"ok": objects.bindings(request.get("names", []))}
    except SystemExit as end:
        done = script and end.code in (None, 0)
        if done:
            surroundings.finish()
        answer = {"ok": None} if done else {"error": describe(end)}
    except BaseException as error:  # noqa: BLE001 - any exception of the program is reported
        answer = {"error": describe(error)}
    try:
        wire.send(channel, {"nonce": request["nonce"], **answer})
    except wire.NotPlain:  # a huge constant of the program
        wire.send(channel, {"nonce": request["nonce"], "ok": [[] for _ in request.get("names", [])]})
    while not script and (question := wire.receive(channel)) is not None:
        objects.serve(question)
    os._exit(0)
