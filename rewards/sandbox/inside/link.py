"""The judge's connection to the program: sends its questions through the host, and turns the answers into built-in
data, stand-ins and errors."""

from __future__ import annotations

import builtins
import collections.abc
import functools
import os
import random
import sys
import threading
import types
from collections.abc import Callable
from typing import Any

from . import standins, values, wire
from .lent import Lent, copied
from .program_errors import Errors, ProgramError

_BASES = {"list": list, "dict": dict, "set": set, "bytearray": bytearray}
_CALLABLE = (
    types.FunctionType,
    types.MethodType,
    types.BuiltinFunctionType,
    types.MethodDescriptorType,
    functools.partial,
    type,
)


class Link:
    """Asks the program, and answers the functions of the tests that it calls."""

    def __init__(self, channel: int) -> None:
        self._channel = channel
        self._turn = threading.RLock()
        self._lent = Lent(self.ask)
        self._heard = False
        """Whether the program has returned anything to the current test."""
        self._stand_ins: dict[int, Any] = {}
        self._named: dict[int | None, Any] = {}
        """The program's classes that the tests name, by number."""
        self._errors = Errors(self.ask, self._live)
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
        self._lent.clear()

    def bind(self, bindings: dict[str, Any], classes: list[str]) -> dict[str, Any]:
        """What the tests find under the program's names: {name in the tests: [name in the program, value]}. Functions
        are found anew at every call. classes: names that the tests use as classes."""
        bound: dict[str, Any] = {}
        for name, (own_name, found) in bindings.items():
            if not found or _is_function(found[0]):
                bound[name] = standins.NamedFunction(self.ask, own_name)
                continue
            bound[name] = value = self._decode(found[0], values.Decoder(self._live))
            if _is_class(value):
                self._named[standins.number_of(value)] = value
            if name in classes and _is_class(value):
                standins.trust_operators(value)
        return bound

    def share_seeds(self) -> None:
        """Let tests that seed `random` seed the program's generator, too."""
        plain = random.seed

        def seed(*arguments: Any, **keywords: Any) -> None:
            plain(*arguments, **keywords)
            self.ask("seed", *arguments, **keywords)

        random.seed = seed

    def ask(self, operation: str, *arguments: Any, **keywords: Any) -> Any:
        """Let the program do something with its objects, or call one of its functions. Threads of the tests wait for
        each other."""
        with self._turn:
            self._lent.give_back()
            value = self._ask(operation, arguments, keywords)
            if operation in ("getattr", "getitem"):
                self._lent.note((operation, *arguments), value)
            return value

    def _ask(self, operation: str, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> Any:
        encoder = values.Encoder(self._reference)
        try:
            sent = encoder.encode(list(arguments))
            named = {key: encoder.encode(value) for key, value in keywords.items()}
            wire.send(self._channel, {"do": operation, "args": sent, "kwargs": named, "live": True})
        except wire.NotPlain as problem:
            about = arguments[0] if arguments else None
            name = about._standin_name if type(about) is standins.NamedFunction else operation
            if isinstance(problem, wire.NotData) or not self._heard:  # the test's own, which no program could get
                self.give_up(f"an argument of {name}: {problem}")
            # The argument may contain the program's own value, so the program must not go unscored.
            raise ProgramError(f"an argument of {name}: {problem}") from None
        answer = self._wait()
        if "error" in answer:
            raise self._errors.error(answer)
        self._heard = True
        decoder = values.Decoder(self._live, encoder.containers)
        try:
            changes = answer["changed"]
            if answer["ok"] is not None:  # see `before`
                self._before += [(encoder.containers[n], copied(encoder.containers[n])) for n, _ in changes if n > 0]
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

    @staticmethod
    def is_same(one: Any, other: Any) -> bool:
        """`one is other`; what stands for the same object of the program is the same."""
        number = standins.number_of(one)
        return one is other or (number is not None and number == standins.number_of(other))

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
        except (Exception, SystemExit, KeyboardInterrupt) as error:  # noqa: BLE001 - goes to the program, which called the function
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
        if type(value) is standins.NamedFunction:
            return {"name": value._standin_name}
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
            described = [getattr(value, "__name__", None), getattr(value, "__doc__", None)]
            return {"cb": [self._callbacks.index(value), *(text if type(text) is str else "" for text in described)]}
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
            return self._errors.error_class(more)
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


def _is_built_in(value: Any) -> bool:
    return isinstance(value, type) and vars(builtins).get(str(value.__name__)) is value


def _is_function(data: Any) -> bool:
    """Whether encoded data is a reference to a function. The program may have forged it."""
    reference = data.get("o") if type(data) is dict else None
    return type(reference) is list and reference[2:3] == ["function"]


def _is_class(value: Any) -> bool:
    return standins.isinstance_of(value, standins.ClassStandIn)


def _awaitable(ask: Callable[..., Any], number: int) -> Any:
    stand_in = standins.StandIn(ask, number, "coroutine", None)

    async def wait() -> Any:
        return ask("await", stand_in)

    return wait()
