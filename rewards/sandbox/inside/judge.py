"""Runs a data set's tests in a sandbox of their own, without the model's program. The program's functions, classes and
objects are replaced by stand-ins, whose calls are forwarded through the host to the program's sandbox, and whose values
return as plain built-in data.

So the program never sees the expected values, and cannot return objects that lie about equality."""

from __future__ import annotations

import builtins
import os
import sys
from typing import Any

from . import expectations, standins, wire
from .link import Link


def main(channel: int) -> None:
    """Run the tests in the first message. Each result is sent as soon as it is known."""
    request = wire.receive(channel)
    if request is None:
        return
    if hasattr(sys, "set_int_max_str_digits"):
        sys.set_int_max_str_digits(0)
    held: list[bool] = []
    expectations.install(held)
    names: dict[str, Any] = {"__name__": "tests", "__builtins__": builtins}
    try:
        for source in request["setup"]:
            exec(compile(source, "<setup>", "exec"), names)
    except BaseException as error:  # noqa: BLE001 - the data set's own code, which may raise anything
        wire.send(channel, {"unusable": _describe(error)})
        os._exit(0)
    link = Link(channel)
    names.update(link.bind(request["names"], request["classes"]))
    link.share_seeds()
    names["__record__"] = recorder = _Recorder(channel)
    names["__held__"] = held.append
    names["__before__"] = link.before
    names["__type__"] = link.kind_of
    names["__is__"] = link.is_same
    names["__run_case__"] = expectations.run_case
    problem = None
    for number, source in request["tests"]:
        held.clear()
        link.next_test()
        try:
            exec(compile(source, "<test>", "exec"), dict(names))
            problem = None
        except standins.Unusable as error:
            link.give_up(str(error))
        except BaseException as error:  # noqa: BLE001
            problem = _describe(error)
        if not request["recorded"]:
            if link.refuted:
                problem = problem or "an assert did not hold in a function that the program called"
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


def _describe(error: BaseException) -> str:
    try:
        return f"{type(error).__name__}: {error}"[:200]
    except Exception:  # noqa: BLE001 - its text may have to be asked of a program that has ended
        return type(error).__name__[:200]
