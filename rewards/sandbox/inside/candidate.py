"""Drives a model's program in the same process: calls its functions and sends their values out, or runs it as a script.

The program can tamper with all of this code. That is safe, since only data leaves the process, and the comparison
happens elsewhere."""

from __future__ import annotations

import os
from typing import Any

from . import surroundings, wire

_MESSAGE = 200
"""Maximum length of a reported error message, in characters."""


def main(channel: int) -> None:
    """Load the program in the first message, then answer calls until the host closes the channel."""
    request = wire.receive(channel)
    if request is None:
        return
    script = request["script"]
    module = surroundings.make_module("__main__" if script else "solution", request["program"])
    try:
        if script:
            surroundings.open_standard_streams()
        exec(compile(request["program"], str(module.__file__), "exec"), module.__dict__)
        if script:
            surroundings.finish()
        answer: dict[str, Any] = {"ok": None}
    except SystemExit as end:
        done = script and end.code in (None, 0)
        if done:
            surroundings.finish()
        answer = {"ok": None} if done else {"error": _describe(end)}
    except BaseException as error:  # noqa: BLE001 - any exception of the program is reported
        answer = {"error": _describe(error)}
    wire.send(channel, {"nonce": request["nonce"], **answer})
    while not script and (call := wire.receive(channel)) is not None:
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
    """The value of one call. If it is None, also the mutable arguments after the call, since the function may work in
    place. Other calls do not report changes, since a test may compute the expected value from the argument that it
    passed."""
    arguments = wire.decode(call["args"])
    keywords = {name: wire.decode(value) for name, value in call["kwargs"].items()}
    if call["name"] not in names:
        raise NameError(f"the program defines no {call['name']}")
    value = names[call["name"]](*arguments, **keywords)
    if value is not None:
        return {"ok": wire.encode(value)}
    mutable = [[i, wire.encode(part)] for i, part in enumerate(arguments) if type(part) in (list, dict, set, bytearray)]
    return {"ok": None, "changed": mutable}


def _describe(error: BaseException) -> list[str]:
    try:
        return [type(error).__name__[:_MESSAGE], str(error)[:_MESSAGE]]
    except BaseException:  # noqa: BLE001 - its own __str__ may raise
        return [type(error).__name__[:_MESSAGE], ""]
