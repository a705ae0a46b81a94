"""Runs a data set's tests in a sandbox of their own, without the model's program. The program's functions are replaced
by stubs, whose calls are forwarded through the host to the program's sandbox, and whose values return as plain
built-in data.

So the program never sees the expected values, and cannot return objects that lie about equality."""

from __future__ import annotations

import builtins
import os
import sys
from typing import Any

from . import wire

_NEVER = (AssertionError, StopIteration, StopAsyncIteration, GeneratorExit)
"""Errors of the program that must not look like the test's own. StopIteration, for example, would end a loop of the
test early, and the test would pass."""


class ProgramError(Exception):
    """The program raised something other than an ordinary built-in error, or did not answer."""


def main(channel: int) -> None:
    """Run the tests in the first message. Each result is sent as soon as it is known."""
    request = wire.receive(channel)
    if request is None:
        return
    if hasattr(sys, "set_int_max_str_digits"):
        sys.set_int_max_str_digits(0)
    names: dict[str, Any] = {"__name__": "tests", "__builtins__": builtins}
    try:
        for source in request["setup"]:
            exec(compile(source, "<setup>", "exec"), names)
    except BaseException as error:  # noqa: BLE001 - the data set's own code, which may raise anything
        wire.send(channel, {"unusable": _describe(error)})
        os._exit(0)
    heard: list[bool] = []
    names.update((name, _stub(channel, function, heard)) for name, function in request["names"].items())
    names["__record__"] = recorder = _Recorder(channel)
    held: list[bool] = []
    names["__held__"] = held.append
    problem = None
    for number, source in request["tests"]:
        heard.clear()
        held.clear()
        try:
            exec(compile(source, "<test>", "exec"), dict(names))
            problem = None
        except BaseException as error:  # noqa: BLE001
            problem = _describe(error)
        if not request["recorded"]:
            recorder(number, problem is None and held and all(held), problem or "no assert was reached")
    wire.send(channel, {"end": True, "problem": problem})
    os._exit(0)


class _Recorder:
    """Reports the result of each test to the host: the first result, and a later failure of the same test in a loop."""

    def __init__(self, channel: int) -> None:
        self._channel = channel
        self._known: dict[int, bool] = {}

    def __call__(self, number: int, passed: Any, note: Any = "") -> None:
        passed = bool(passed)
        if self._known.get(number, True) and self._known.get(number) is not passed:
            self._known[number] = passed
            note = note if isinstance(note, str) else _describe(note)
            wire.send(self._channel, {"result": [number, passed, note[:200]]})


def _stub(channel: int, name: str, heard: list[bool]) -> Any:
    """A function that forwards its calls to the program. heard: gets an element per value that the program returns."""

    def call(*arguments: Any, **keywords: Any) -> Any:
        try:
            message = {
                "call": name,
                "args": wire.encode(list(arguments), opaque=False),
                "kwargs": {key: wire.encode(value, opaque=False) for key, value in keywords.items()},
            }
            wire.send(channel, message)
        except wire.NotPlain as problem:
            if isinstance(problem, wire.NotData) or not heard:  # the test's own argument, which no program could get
                wire.send(channel, {"unusable": f"an argument of {name}: {problem}"})
                os._exit(0)
            # The argument may contain the program's own value, so the program must not go unscored.
            raise ProgramError(f"an argument of {name}: {problem}") from None
        answer = wire.receive(channel)
        if answer is None:
            os._exit(0)
        if "error" in answer:
            raise _error(*answer["error"])
        heard.append(True)
        try:
            for index, state in answer.get("changed", ()):
                _update(arguments[index], wire.decode(state))
            return wire.decode(answer["ok"])
        except (ValueError, TypeError, KeyError, IndexError) as problem:
            raise ProgramError(f"invalid value: {problem}") from None

    call.__name__ = name
    return call


def _error(kind: str, message: str) -> Exception:
    error = getattr(builtins, kind, None)
    ordinary = isinstance(error, type) and issubclass(error, Exception) and not issubclass(error, _NEVER)
    try:
        return error(message) if ordinary else ProgramError(f"{kind}: {message}")  # type: ignore[misc]
    except TypeError:  # some errors, such as UnicodeDecodeError, take more than a message
        return ProgramError(f"{kind}: {message}")


def _update(argument: Any, state: Any) -> None:
    """Apply the changes of the program's copy to an argument. Raises ValueError."""
    if type(argument) is not type(state):
        raise ValueError("an argument changed its type")
    if isinstance(argument, list | bytearray):
        argument[:] = state
    elif isinstance(argument, dict | set):
        argument.clear()
        argument.update(state)


def _describe(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"[:200]
