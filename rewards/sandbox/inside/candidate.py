"""The driver beside a model's program: calls its functions and sends their values out, or runs it as a script.

Nothing here needs to be safe from the program, which may change all of it: what leaves is data that others compare."""

from __future__ import annotations

import atexit
import os
import sys
import threading
import types
from typing import Any

from . import wire

_MESSAGE = 200
"""Characters of an error that are passed on."""


def main(channel: int) -> None:
    """Load the program that the first message holds, then answer until the host hangs up."""
    request = wire.receive(channel)
    if request is None:
        return
    module = types.ModuleType("__main__" if request["script"] else "solution")
    sys.modules[module.__name__] = module  # dataclasses, pickle and typing look a module up by its name
    try:
        if request["script"]:
            _open_standard_streams()
        exec(compile(request["program"], "<solution>", "exec"), module.__dict__)
        if request["script"]:
            _finish()
        answer: dict[str, Any] = {"ok": None}
    except SystemExit as end:
        done = request["script"] and end.code in (None, 0)
        if done:
            _finish()
        answer = {"ok": None} if done else {"error": _describe(end)}
    except BaseException as error:  # noqa: BLE001 - whatever it raises is an answer
        answer = {"error": _describe(error)}
    wire.send(channel, {"nonce": request["nonce"], **answer})
    while not request["script"] and (call := wire.receive(channel)) is not None:
        _answer(channel, call, module.__dict__)
    os._exit(0)


def _answer(channel: int, call: dict[str, Any], names: dict[str, Any]) -> None:
    try:
        answer = _call(call, names)
        message = wire.pack({"nonce": call["nonce"], **answer})
    except BaseException as error:  # noqa: BLE001
        message = wire.pack({"nonce": call["nonce"], "error": _describe(error)})
    while message:
        message = message[os.write(channel, message) :]


def _call(call: dict[str, Any], names: dict[str, Any]) -> dict[str, Any]:
    """The value of one call. When that is None, also its arguments as it left them: it may have worked in place. (Of other
    calls changes are not told: a test may compute what it expects from the very argument that it has passed.)"""
    arguments = wire.decode(call["args"])
    keywords = {name: wire.decode(value) for name, value in call["kwargs"].items()}
    if call["name"] not in names:
        raise NameError(f"the program defines no {call['name']}")
    value = names[call["name"]](*arguments, **keywords)
    if value is not None:
        return {"ok": wire.encode(value)}
    mutable = [[i, wire.encode(part)] for i, part in enumerate(arguments) if type(part) in (list, dict, set, bytearray)]
    return {"ok": None, "changed": mutable}


def _open_standard_streams() -> None:
    sys.stdin = sys.__stdin__ = open(0, encoding="utf-8", closefd=False)
    sys.stdout = sys.__stdout__ = open(1, "w", encoding="utf-8", closefd=False)
    sys.stderr = sys.__stderr__ = open(2, "w", encoding="utf-8", errors="replace", closefd=False)


def _finish() -> None:
    """What the interpreter does at its end, so that a script may count on it."""
    threading._shutdown()
    atexit._run_exitfuncs()
    sys.stdout.flush()


def _describe(error: BaseException) -> list[str]:
    try:
        return [type(error).__name__[:_MESSAGE], str(error)[:_MESSAGE]]
    except BaseException:  # noqa: BLE001 - its own __str__ may raise
        return [type(error).__name__[:_MESSAGE], ""]
