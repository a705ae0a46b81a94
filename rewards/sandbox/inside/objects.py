"""The program's side of its live objects: keeps those that the tests hold, and does with them what the tests ask."""

from __future__ import annotations

import builtins
import copy
import importlib
import inspect
import operator
import os
import random
import re
import types
from collections.abc import Callable
from typing import Any

from . import values, wire

_MESSAGE = 200
"""Maximum length of a reported error message, in characters."""
_METHOD = re.compile(r"(\w+)(?:\(\))?\.(\w+)")
_FIXED = (int, float, complex, str, bytes, tuple, frozenset)
_CHANGEABLE = ((list, "list"), (dict, "dict"), (set, "set"), (bytearray, "bytearray"))


def _next(iterator: Any, count: int) -> tuple[list[Any], bool]:
    """Up to `count` elements, and whether that was all."""
    elements: list[Any] = []
    for _ in range(count):
        try:
            elements.append(next(iterator))
        except StopIteration:
            return elements, True
    return elements, False


def _await(awaitable: Any) -> Any:
    import asyncio  # here, since most programs need none

    global _loop
    _loop = _loop or asyncio.new_event_loop()
    return _loop.run_until_complete(awaitable)


def _anext(iterator: Any) -> tuple[Any, bool]:
    """The next element, and whether there was none."""
    try:
        return _await(iterator.__anext__()), False
    except StopAsyncIteration:
        return None, True


_loop: Any = None
_BUILT_IN = """getattr setattr delattr len iter bool int float complex str repr hash abs round format isinstance
    issubclass dir reversed"""
_OPERATORS = """getitem setitem delitem contains index neg pos invert eq ne lt le gt ge add sub mul matmul truediv
    floordiv mod pow and_ or_ xor lshift rshift iadd isub imul itruediv ior iand ixor"""


def _refill(new: Any, operation: str, owner: Any, key: Any) -> None:
    """Give a container of one of the program's objects, found by an operation, new contents."""
    container = OPERATIONS[operation](owner, key)
    if isinstance(container, list | bytearray):
        container[:] = new
    else:
        container.clear()
        container.update(new)


OPERATIONS: dict[str, Callable[..., Any]] = {
    **{name: getattr(builtins, name) for name in _BUILT_IN.split()},
    **{name: getattr(operator, name) for name in _OPERATORS.split()},
    "type": type,
    "call": lambda function, *arguments, **keywords: function(*arguments, **keywords),
    "next": _next,
    "await": _await,
    "anext": _anext,
    "seed": random.seed,
    "refill": _refill,
    "enter": lambda manager: type(manager).__enter__(manager),
    "exit": lambda manager, *error: type(manager).__exit__(manager, *error),
    "aiter": lambda value: value.__aiter__(),
    "copy": copy.copy,
    "deepcopy": copy.deepcopy,
    "list": list.copy,
    "dict": dict.copy,
    "set": set.copy,
    "bytearray": bytearray.copy,
}


class Objects:
    """The objects of one program that the tests hold, and its answers to the tests' questions."""

    def __init__(self, channel: int, module: types.ModuleType, first: int) -> None:
        """first: the number of the first object; a program that is started again continues with other numbers."""
        self._channel, self._names, self._own = channel, vars(module), module.__name__
        self._first = first
        self._bound: int | None = None
        """Number of objects that were bound when the program was loaded: they have these numbers after every start."""
        self._held: list[Any] = []
        self._numbers: dict[int, int] = {}
        self._callbacks: dict[int, Any] = {}
        self._nonce: Any = None

    def bindings(self, names: list[str]) -> list[Any]:
        """What the program defines under these names: [value] each, or [] for nothing that can be sent."""
        found: list[Any] = []
        for name in names:
            try:
                found.append([values.encode(self._find(name), self._reference)])
            except (NameError, wire.NotPlain):
                found.append([])
        self._bound = len(self._held)
        return found

    def serve(self, request: dict[str, Any]) -> None:
        """Answer a question on the channel."""
        self._nonce = request["nonce"]
        try:
            message = wire.pack({"nonce": request["nonce"], **self._answer(request)})
        except BaseException as error:  # noqa: BLE001 - any exception of the program is reported
            message = wire.pack({"nonce": request["nonce"], **self._raised(error, live=bool(request.get("live")))})
        while message:
            message = message[os.write(self._channel, message) :]

    def _answer(self, request: dict[str, Any]) -> dict[str, Any]:
        decoder = values.Decoder(self._object)
        arguments = decoder.decode(request["args"])
        keywords = {name: decoder.decode(value) for name, value in request["kwargs"].items()}
        if request["do"] == "name":
            arguments.insert(0, self._find(request["name"]))
        operation = OPERATIONS["call" if request["do"] == "name" else request["do"]]
        before = [_copy(container) for container in decoder.containers[1:]]  # the first is the list of arguments
        value = operation(*arguments, **keywords)
        if not request.get("live"):
            return {"ok": values.encode(value)}
        encoder = values.Encoder(self._reference, decoder.containers)
        changed = [
            [number, encoder.contents(container)]
            for number, (container, old) in enumerate(zip(decoder.containers[1:], before, strict=True), 1)
            if not _same(container, old)
        ]
        return {"ok": encoder.encode(value), "changed": changed}

    def _find(self, name: str) -> Any:
        """The object of a name: a function, a class, a constant, or a method (`Solution().f`, `Solution.f`, or `f` of a
        class `Solution`, each time of a new object)."""
        if name in self._names:
            return self._names[name]
        method = _METHOD.fullmatch(name)
        owner, attribute = method.groups() if method else ("Solution", name)
        kind = self._names.get(owner)
        if not isinstance(kind, type) or not hasattr(kind, attribute):
            raise NameError(f"the program defines no {name}")
        return getattr(kind(), attribute)

    def _reference(self, value: Any, part: Any, contents: Any) -> Any:
        """Encodes an object that is not plain data: its number, its name, and what it is."""
        kind: type = type(value)
        if isinstance(value, type):
            if _is_built_in(value):
                return {"type": value.__name__}
            if issubclass(value, BaseException):
                return {"o": [self._number(value), value.__name__, "error", self._described(value)]}
            return {"o": [self._number(value), value.__name__, "class", None]}
        if kind.__module__ == "numpy" and hasattr(value, "tolist"):
            return {"np": [str(value.dtype), part(value.tolist())]} if value.shape else part(value.item())
        what = "object"
        if issubclass(kind, _FIXED):
            if kind.__module__ != self._own and not hasattr(kind, "_fields"):  # a namedtuple of the library has names
                return contents(value)
            return {"x": [contents(value), [self._number(value), kind.__name__[:_MESSAGE]]]}
        if inspect.iscoroutine(value):
            what = "awaitable"
        elif callable(value) and kind.__module__ != self._own:
            what = "function"
        elif callable(getattr(kind, "__next__", None)):
            what = "iterator"
        else:
            what = next((word for base, word in _CHANGEABLE if issubclass(kind, base)), what)
        return {"o": [self._number(value), kind.__name__[:_MESSAGE], what, None]}

    def _number(self, value: Any) -> int:
        number = self._numbers.setdefault(id(value), len(self._held))
        if number == len(self._held):
            self._held.append(value)
        return number if self._bound is None or number < self._bound else self._first + number

    def _described(self, kind: type) -> Any:
        """An exception class: where it is found in the library, or its number, name and base classes."""
        if kind is object:
            return "builtins:object"
        if kind.__module__ != self._own:
            return f"{kind.__module__}:{kind.__qualname__}"
        return [self._number(kind), kind.__name__[:_MESSAGE], [self._described(base) for base in kind.__bases__]]

    def _raised(self, error: BaseException, *, live: bool) -> dict[str, Any]:
        if isinstance(error, wire.NotPlain):
            return {"error": ["TooLarge", str(error)]}
        answer: dict[str, Any] = {"error": describe(error)}
        if live:
            try:
                arguments = values.encode(list(error.args), self._reference)
                answer["raised"] = [self._number(error), self._described(type(error)), arguments]
                wire.pack(answer)
            except BaseException:  # noqa: BLE001 - it lies about itself, or is too large: kind and text remain
                answer.pop("raised", None)
        return answer

    def _object(self, tag: str, content: Any, part: Any) -> Any:
        """Decodes what the tests send, which are not the program's: trusted data."""
        if tag == "h":
            bound = content < (self._bound or 0)
            number = content if bound else content - self._first
            if not 0 <= number < len(self._held):
                raise LookupError("the program that made this object has ended")
            return self._held[number]
        if tag == "type":
            return getattr(builtins, content)
        if tag == "lib":
            module, _, name = content.partition(":")
            return operator.attrgetter(name)(importlib.import_module(module))
        if tag == "np":
            return importlib.import_module("numpy").array(part(content[1]), dtype=content[0])
        if tag == "stranger":
            return object()
        if tag == "name":
            return self._find(content)
        if tag == "cb":
            number, *described = content
            if number not in self._callbacks:
                self._callbacks[number] = function = self._callback(number)
                function.__name__, function.__doc__ = described
            return self._callbacks[number]
        raise ValueError(f"unknown tag {tag!r:.20}")

    def _callback(self, number: int) -> Callable[..., Any]:
        """A function of the tests, which runs on their side."""

        def function(*arguments: Any, **keywords: Any) -> Any:
            encoder = values.Encoder(self._reference)
            sent = encoder.encode(list(arguments))
            named = {name: encoder.encode(value) for name, value in keywords.items()}
            nonce = self._nonce
            wire.send(self._channel, {"nonce": nonce, "callback": number, "args": sent, "kwargs": named})
            while True:
                message = wire.receive(self._channel)
                if message is None:
                    os._exit(0)
                if "do" in message:  # the function of the tests has a question of its own
                    self.serve(message)
                    self._nonce = nonce
                elif "error" in message:
                    kind, text = message["error"]
                    error: Any = getattr(builtins, kind, None)
                    raise error(text) if _is_error(error) else RuntimeError(f"{kind}: {text}")
                else:
                    return values.Decoder(self._object, encoder.containers).decode(message["returned"])

        return function


def _is_built_in(value: Any) -> bool:
    return isinstance(value, type) and vars(builtins).get(str(value.__name__)) is value


def _is_error(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, Exception)


def describe(error: BaseException) -> list[str]:
    """Kind and text of an error."""
    try:
        return [type(error).__name__[:_MESSAGE], str(error)[:_MESSAGE]]
    except BaseException:  # noqa: BLE001 - its own __str__ may raise
        return [type(error).__name__[:_MESSAGE], ""]


def _copy(container: Any) -> Any:
    return list(container.items()) if isinstance(container, dict) else copy.copy(container)


def _same(container: Any, old: Any) -> bool:
    """Whether a container holds the same objects as before."""
    if isinstance(container, bytearray):
        return container == old
    if isinstance(container, set):
        return len(container) == len(old) and {*map(id, container)} == {*map(id, old)}
    if len(container) != len(old):
        return False
    if isinstance(container, dict):
        return all(a is c and b is d for (a, b), (c, d) in zip(container.items(), old, strict=True))
    return all(map(operator.is_, container, old))
