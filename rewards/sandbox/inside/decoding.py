"""Reads the encoding that `values` writes. The reader trusts no input: whatever the data, it creates only built-in
objects of limited size and depth, and what its hook for live objects makes of their numbers."""

from __future__ import annotations

import array
import collections
import datetime
import math
import pathlib
import uuid
from collections.abc import Callable
from decimal import Decimal
from fractions import Fraction
from typing import Any

from .wire import MAX_DEPTH, deep

DecodeLive = Callable[[str, Any, Callable[[Any], Any]], Any]
"""The object for {tag: content}, given a decoder of its parts. Raises ValueError."""


def decode(data: Any) -> Any:
    """The inverse of `encode`, in built-in types. Raises ValueError for anything that `encode` does not produce."""
    return Decoder(None).decode(data)


class Decoder:
    """Decodes several values of one message."""

    def __init__(self, live: DecodeLive | None, known: list[Any] | None = None) -> None:
        """live: makes an object of the data that is not plain, {tag: content}. known: containers by number."""
        self.containers = list(known or ())
        self._live = live
        self._counted = False
        """Whether the next container has its number already."""

    def decode(self, data: Any) -> Any:
        """Raises ValueError for data that no encoder writes."""
        try:
            with deep():
                return self._decode(data, 0)
        except (TypeError, KeyError, IndexError, ArithmeticError, RecursionError) as error:
            raise ValueError(f"not an encoded value: {error}") from None

    def refill(self, number: int, data: Any) -> None:
        """Give a known container the contents that `Encoder.contents` wrote. Raises ValueError."""
        try:
            container = self.containers[number]
            self._counted = True
            with deep():
                new = self._decode(data, 0)
        except (TypeError, KeyError, IndexError, ArithmeticError, RecursionError) as error:
            raise ValueError(f"not an encoded value: {error}") from None
        if type(new) is not type(container):
            raise ValueError("an argument changed its type")
        if isinstance(container, list | bytearray):
            container[:] = new
        else:
            container.clear()
            container.extend(new) if isinstance(container, collections.deque) else container.update(new)

    def _decode(self, data: Any, depth: int) -> Any:
        if depth > MAX_DEPTH:
            raise ValueError("nested too deeply")
        if data is None or type(data) in (bool, int, float, str):
            return data
        if type(data) is list:
            return self._fill([], data, depth)
        if type(data) is not dict or len(data) != 1:
            raise ValueError("not an encoded value")
        [(tag, content)] = data.items()
        if tag in _TEXTS:
            if type(content) is not str:
                raise ValueError("not an encoded value")
            value = _TEXTS[tag](content)
            if tag == "ba":
                self._begin(value)
            return value
        if tag in _CHANGED_SEQUENCES:
            return self._fill(_CHANGED_SEQUENCES[tag](), _list(content), depth)
        if tag in _CHANGED_MAPPINGS:
            return self._fill_mapping(_CHANGED_MAPPINGS[tag](), content, depth)
        if tag in _LISTS:
            return _LISTS[tag]([self._decode(part, depth + 1) for part in _list(content)])
        return self._special(tag, content, depth)

    def _special(self, tag: str, content: Any, depth: int) -> Any:
        if tag == "@" and type(content) is int and content >= 0:
            return self.containers[content]
        if tag == "dd":
            factory, pairs = _list(content)
            value: Any = collections.defaultdict(None)
            self._begin(value)  # before the factory is decoded, as it was counted
            value.default_factory = self._decode(factory, depth + 1)
            return self._pairs_into(value, pairs, depth)
        if tag == "di":
            return self._pairs_into({}, content, depth).items()
        if tag == "A":
            code, elements = _list(content)
            return array.array(code, [self._decode(part, depth + 1) for part in _list(elements)])
        if self._live is None:
            raise ValueError(f"unknown tag {tag!r:.20}")
        return self._live(tag, content, lambda part: self._decode(part, depth + 1))

    def _begin(self, container: Any) -> None:
        if not self._counted:
            self.containers.append(container)
        self._counted = False

    def _fill(self, value: Any, content: list[Any], depth: int) -> Any:
        self._begin(value)
        (value.update if type(value) is set else value.extend)(self._parts(content, depth))
        return value

    def _fill_mapping(self, value: Any, content: Any, depth: int) -> Any:
        self._begin(value)
        return self._pairs_into(value, content, depth)

    def _pairs_into(self, value: Any, content: Any, depth: int) -> Any:
        keys, items = (self._parts(_list(part), depth) for part in _list(content))
        if len(keys) != len(items):
            raise ValueError("not an encoded value")
        for key, item in zip(keys, items, strict=True):
            value[key] = item
        return value

    def _parts(self, content: list[Any], depth: int) -> list[Any]:
        if set(map(type, content)) <= _PLAIN_KINDS:
            return content
        return [self._decode(part, depth + 1) for part in content]


def _list(content: Any) -> list[Any]:
    if type(content) is not list:
        raise ValueError("not an encoded value")
    return content


def _number(value: Any) -> float:
    if type(value) not in (int, float):
        raise ValueError("not a number")
    return float(value)


_PLAIN_KINDS = {type(None), bool, int, float, str}
_CHANGED_SEQUENCES: dict[str, Any] = {"s": set, "dq": collections.deque}
_CHANGED_MAPPINGS: dict[str, Any] = {"d": dict, "C": collections.Counter, "od": collections.OrderedDict}
_LISTS: dict[str, Any] = {
    "t": tuple,
    "fs": frozenset,
    "it": iter,
    "dk": lambda keys: dict.fromkeys(keys).keys(),
    "dv": lambda values: dict(enumerate(values)).values(),
    "c": lambda parts: complex(*map(_number, parts)),
    "r": lambda parts: range(*parts),
    "sl": lambda parts: slice(*parts),
    "F": lambda parts: Fraction(*parts),
    "span": lambda parts: datetime.timedelta(*parts),
}
_TEXTS: dict[str, Any] = {
    "i": lambda text: int(text, 16),
    "f": lambda text: {"inf": math.inf, "-inf": -math.inf, "nan": math.nan}[text],
    "b": lambda text: text.encode("latin-1"),
    "ba": lambda text: bytearray(text, "latin-1"),
    "D": Decimal,
    "when": datetime.datetime.fromisoformat,
    "day": datetime.date.fromisoformat,
    "clock": datetime.time.fromisoformat,
    "uuid": uuid.UUID,
    "path": pathlib.PosixPath,
    "pure": pathlib.PurePosixPath,
    "only": lambda text: {"Ellipsis": ..., "NotImplemented": NotImplemented}[text],
}
