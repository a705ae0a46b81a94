"""The judge's connection to the program: sends its questions through the host, and turns the answers into built-in
data, stand-ins and errors."""

from __future__ import annotations

import builtins
import collections.abc
import functools
import os
import sys
import types
import unittest
from collections.abc import Callable
from typing import Any

from . import standins, values, wire

_NEVER = (AssertionError, StopIteration, StopAsyncIteration, GeneratorExit, unittest.SkipTest)
"""Errors of the program that must not look like the test's own. StopIteration, for example, would end a loop of the
test early, and the test would pass."""
_BASES = {"list": list, "dict": dict, "set": set, "bytearray": bytearray}
_CALLABLE = (
    types.FunctionType,
    types.MethodType,
    types.BuiltinFunctionType,
    types.MethodDescriptorType,
    functools.partial,
    type,
)


class ProgramError(Exception):
    """The program raised something other than an ordinary error, or did not answer."""


class Link:
    """Asks the program, and answers the functions of the tests that it calls."""

    def __init__(self, channel: int) -> None:
        self._channel = channel
        self._heard = False
        """Whether the program has returned anything to the current test."""
        self._stand_ins: dict[int, Any] = {}
        self._named: dict[int | None, Any] = {}
        """The program's classes that the tests name, by number."""
        self._errors: dict[int | str, type] = {}
        self._callbacks: list[Any] = []
        self._coroutines: dict[int, tuple[Any, int]] = {}
        """The program's coroutines that the tests hold, by id: (coroutine, number)."""
        self.refuted = False
        """Whether an assert failed in a function of the tests that the program called: it could go on guessing."""
        self._before: list[tuple[Any, Any]] = []

    def next_test(self) -> None:
        """Forget what belongs to the last test only."""
        self._heard = self.refuted = False
        self._before.clear()

    def bind(self, bindings: dict[str, Any], classes: list[str]) -> dict[str, Any]:
        """What the tests find under the program's names: {name in the tests: [name in the program, value]}. Functions
        are found anew at every call. classes: names that the tests use as classes."""
        bound: dict[str, Any] = {}
        for name, (own_name, found) in bindings.items():
            if not found or _is_function(found[0]):
                bound[name] = self._function(own_name)
                continue
            bound[name] = value = self._decode(found[0], values.Decoder(self._live))
            if _is_class(value):
                self._named[standins.number_of(value)] = value
            if name in classes and _is_class(value):
                standins.trust_operators(value)
        return bound

    def _function(self, name: str) -> Any:
        def call(*arguments: Any, **keywords: Any) -> Any:
            return self._ask("name", name, arguments, keywords)

        call.__name__ = name
        return call

    def ask(self, operation: str, *arguments: Any, **keywords: Any) -> Any:
        """Let the program do something with its objects."""
        return self._ask(operation, None, arguments, keywords)

    def _ask(self, operation: str, name: str | None, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> Any:
        encoder = values.Encoder(self._reference)
        try:
            sent = encoder.encode(list(arguments))
            named = {key: encoder.encode(value) for key, value in keywords.items()}
            wire.send(
                self._channel,
                {"do": operation, "name": name, "args": sent, "kwargs": named, "live": True},
            )
        except wire.NotPlain as problem:
            if isinstance(problem, wire.NotData) or not self._heard:  # the test's own, which no program could get
                self.give_up(f"an argument of {name or operation}: {problem}")
            # The argument may contain the program's own value, so the program must not go unscored.
            raise ProgramError(f"an argument of {name or operation}: {problem}") from None
        answer = self._wait()
        if "error" in answer:
            raise self._error(answer)
        self._heard = True
        decoder = values.Decoder(self._live, encoder.containers)
        try:
            changes = answer["changed"]
            if answer["ok"] is not None:  # see `before`
                self._before += [(encoder.containers[n], _copied(encoder.containers[n])) for n, _ in changes if n > 0]
            for number, contents in changes:
                decoder.refill(number, contents)
            return decoder.decode(answer["ok"])
        except (ValueError, TypeError, KeyError, IndexError) as problem:
            raise ProgramError(f"invalid value: {problem}") from None

    def kind_of(self, value: Any) -> Any:
        """`type(value)`; for an object of the program the program's class, which is no built-in one."""
        if standins.number_of(value) is None:
            return type(value)
        kind = self.ask("type", value)
        return self._named.get(standins.number_of(kind), kind) if _is_class(kind) else type(value)

    def give_up(self, why: str) -> None:
        """End the judge: the tests themselves cannot be used."""
        wire.send(self._channel, {"unusable": why})
        os._exit(0)

    def before(self, value: Any) -> Any:
        """The value as it was before the program changed it in a call that also returned something: what the tests
        compute an expected value from, beside the program's own."""
        for changed, old in self._before:
            if changed is value:
                return old
        if self._before and type(value) in (list, tuple):
            return type(value)(map(self.before, value))
        if self._before and type(value) is dict:
            return {key: self.before(item) for key, item in value.items()}
        return value

    def _wait(self) -> dict[str, Any]:
        while True:
            message = wire.receive(self._channel)
            if message is None:
                os._exit(0)
            if "callback" not in message:
                return message
            wire.send(self._channel, self._called(message))

    def _called(self, message: dict[str, Any]) -> dict[str, Any]:
        """The answer to a call of a function of the tests."""
        decoder = values.Decoder(self._live)
        try:
            function = self._callbacks[message["callback"]]
            arguments = decoder.decode(message["args"])
            keywords = {str(name): decoder.decode(value) for name, value in message["kwargs"].items()}
        except (ValueError, TypeError, KeyError, IndexError, AttributeError) as problem:
            return {"error": ["ValueError", f"a malformed call: {problem}"]}
        try:
            encoder = values.Encoder(self._reference, decoder.containers)
            return {"returned": encoder.encode(function(*arguments, **keywords))}
        except wire.NotData as problem:
            self.give_up(f"a function of the tests returns what cannot be passed: {problem}")
        except Exception as error:  # noqa: BLE001 - goes to the program, which called the function
            self.refuted = self.refuted or isinstance(error, AssertionError)
            return {"error": [type(error).__name__, str(error)[:200]]}
        raise AssertionError("not reached")

    def _decode(self, data: Any, decoder: values.Decoder) -> Any:
        try:
            return decoder.decode(data)
        except ValueError as problem:
            raise ProgramError(f"invalid value: {problem}") from None

    # --- references ---------------------------------------------------------------------------------------------------

    def _reference(self, value: Any, part: Any, contents: Any) -> Any:
        """Encodes an object of the tests that is not plain data."""
        number = standins.number_of(value)
        if number is not None:
            return {"h": number}
        if type(value).__module__ == "numpy" and hasattr(value, "tolist"):
            return {"np": [str(value.dtype), part(value.tolist())]} if value.shape else part(value.item())
        if isinstance(value, standins.Stranger):
            return {"stranger": None}
        if _is_built_in(value):
            return {"type": value.__name__}
        if id(value) in self._coroutines:
            return {"h": self._coroutines[id(value)][1]}
        known = getattr(type(value), "_number_of_error", None)
        if known is not None:
            return {"h": value._number_of_error}
        if isinstance(value, _CALLABLE):
            if isinstance(value, types.BuiltinFunctionType) and isinstance(value.__self__, types.ModuleType):
                return {"lib": f"{value.__module__}:{value.__qualname__}"}
            if isinstance(value, types.MethodDescriptorType):  # `str.upper`
                return {"lib": f"{value.__objclass__.__module__}:{value.__qualname__}"}
            if value not in self._callbacks:
                self._callbacks.append(value)
            return {"cb": self._callbacks.index(value)}
        if isinstance(value, collections.abc.Iterator):
            return {"it": [part(element) for element in value]}
        if isinstance(value, (int, float, complex, str, bytes, tuple, frozenset, list, dict, set)):
            return contents(value)
        raise wire.NotData(f"a value of type {type(value).__name__} is not plain data")

    def _live(self, tag: str, content: Any, part: Any) -> Any:
        """The object for a reference of the program. Raises ValueError."""
        if tag == "type" and isinstance(content, str) and isinstance(getattr(builtins, content, None), type):
            return getattr(builtins, content)
        if tag == "x":
            data, (number, name) = content
            base = part(data)
            if type(number) is not int or type(name) is not str or not values.is_data(base):
                raise ValueError("not a reference")
            return standins.with_data(self.ask, base, number, name)
        if tag == "np" and "numpy" in sys.modules:
            kind, elements = content
            if type(kind) is not str or kind == "object":
                raise ValueError("not an array")
            return sys.modules["numpy"].array(part(elements), dtype=kind)
        if tag != "o":
            raise ValueError(f"unknown tag {tag!r:.20}")
        number, name, what, more = content
        if type(number) is not int or type(name) is not str or type(what) is not str:
            raise ValueError("not a reference")
        if what == "error":
            return self._error_class(more)
        if what == "awaitable":
            coroutine = _awaitable(self.ask, number)
            self._coroutines[id(coroutine)] = coroutine, number
            return coroutine
        known = self._stand_ins.get(number)
        if known is None or known._standin_asked:  # one that a test made by its class's name has more rights
            kind = {"class": standins.ClassStandIn, "iterator": standins.IteratorStandIn}.get(what, standins.StandIn)
            known = standins.kind_named(kind, name)(self.ask, number, name, _BASES.get(what))
            self._stand_ins[number] = known
        return known

    # --- errors -------------------------------------------------------------------------------------------------------

    def _error(self, answer: dict[str, Any]) -> Exception:
        """The program's error as an object that the tests' `except` recognizes."""
        kind, text = answer["error"]
        try:
            number, described, arguments = answer["raised"]
            error_class = self._error_class(described)
            decoded = values.Decoder(self._live).decode(arguments)
            error = error_class.__new__(error_class, *decoded)
            error.args = tuple(decoded)
            if hasattr(error_class, "_number_of_error"):
                error._number_of_error, error._text = int(number), text
            return error if isinstance(error, Exception) else ProgramError(f"{kind}: {text}")
        except (KeyError, ValueError, TypeError):  # not from the program's own code (it has ended, say), or malformed
            error_class = getattr(builtins, kind, ProgramError)
            if not _is_ordinary(error_class):
                error_class = ProgramError
            try:
                return error_class(text if error_class is not ProgramError else f"{kind}: {text}")
            except TypeError:  # some errors, such as UnicodeDecodeError, take more than a message
                return ProgramError(f"{kind}: {text}")

    def _error_class(self, described: Any) -> type:
        """An exception class of Python; or, for one of the library or of the program, a subclass of the same name with
        the same bases, whose objects have the attributes of the program's."""
        if type(described) is str:
            module, _, name = described.partition(":")
            found: Any = getattr(sys.modules.get(module), name, None)
            if found is object or not _is_ordinary(found):
                return object if found is object else ProgramError
            return found if module == "builtins" else self._with_attributes(described, name, (found,))
        number, name, bases = described
        if type(number) is not int or type(name) is not str:
            raise ValueError("not an error class")
        built = [base for base in map(self._error_class, bases) if base is not object]
        return self._with_attributes(number, name, tuple(dict.fromkeys(built)) or (ProgramError,))

    def _with_attributes(self, key: int | str, name: str, bases: tuple[type, ...]) -> type:
        if key not in self._errors:

            def attribute(error: Any, name: str) -> Any:
                return self.ask("getattr", error, name)

            names = {"_number_of_error": -1, "_text": "", "__str__": lambda error: error._text}
            self._errors[key] = type(name, bases, {**names, "__getattr__": attribute})
        return self._errors[key]


def _is_built_in(value: Any) -> bool:
    return isinstance(value, type) and vars(builtins).get(str(value.__name__)) is value


def _is_function(data: Any) -> bool:
    """Whether encoded data is a reference to a function. The program may have forged it."""
    reference = data.get("o") if type(data) is dict else None
    return type(reference) is list and reference[2:3] == ["function"]


def _is_class(value: Any) -> bool:
    return standins.isinstance_of(value, standins.ClassStandIn)


def _is_ordinary(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, Exception) and not issubclass(kind, _NEVER)


def _awaitable(ask: Callable[..., Any], number: int) -> Any:
    stand_in = standins.StandIn(ask, number, "coroutine", None)

    async def wait() -> Any:
        return ask("await", stand_in)

    return wait()


def _copied(value: Any) -> Any:
    """A copy of plain containers; other objects stay themselves."""
    if type(value) in (list, tuple):
        return type(value)(map(_copied, value))
    if type(value) is dict:
        return {key: _copied(item) for key, item in value.items()}
    return value.copy() if type(value) in (set, bytearray) else value
