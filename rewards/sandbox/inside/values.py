"""An encoding of Python values as JSON that keeps types, and which container is the same as which other.

The reader trusts no input: whatever the data, it creates only built-in objects of limited size and depth, and what its
hook for live objects makes of their numbers.

Strings, bools, None, lists, ints below 2**53 and finite floats stay as they are; other values become {tag: content}.
Containers that can be changed are numbered in the order in which they begin; one that comes again is {"@": number}."""

from __future__ import annotations

import array
import collections
import collections.abc
import datetime
import math
import pathlib
import uuid
from collections.abc import Callable
from decimal import Decimal
from fractions import Fraction
from typing import Any

from .decoding import DecodeLive, Decoder, decode
from .wire import MAX_DEPTH, MAX_MESSAGE, NotPlain, deep

_MAX_ITEMS = 4_000_000
_PLAIN_INT = 1 << 53
__all__ = ["DecodeLive", "Decoder", "EncodeLive", "Encoder", "decode", "encode", "is_data"]

Part = Callable[[Any], Any]
EncodeLive = Callable[[Any, Part, Part], Any]
"""Encodes a value that is not plain data as {tag: content}: (value, encoder of further values, encoder of one as its
built-in type). Raises NotData if it cannot."""


def encode(value: Any, live: EncodeLive | None = None) -> Any:
    """A value as JSON. Without `live`, instances of subclasses are encoded as the built-in type, iterators by their
    elements, and everything else as an object without content. Raises NotPlain."""
    return Encoder(live).encode(value)


class Encoder:
    """Encodes several values of one message."""

    def __init__(self, live: EncodeLive | None, known: list[Any] | None = None) -> None:
        """known: containers that the reader has already, by number. They are encoded as these numbers."""
        self.containers = list(known or ())
        self._numbers = {id(container): number for number, container in enumerate(self.containers)}
        self._live = live
        self._items = 0

    def encode(self, value: Any) -> Any:
        with deep():
            return self._encode(value, 0)

    def contents(self, container: Any) -> Any:
        """A container's own encoding, though the reader knows it."""
        with deep():
            return self._contents(container, type(container), 0)

    def _encode(self, value: Any, depth: int) -> Any:
        self._count(1)
        if depth > MAX_DEPTH:
            raise NotPlain(f"the value is nested more than {MAX_DEPTH} deep")
        kind = type(value)
        if value is None or kind is bool:
            return value
        if kind in _CHANGEABLE and self._live is not None:
            number = self._numbers.setdefault(id(value), len(self.containers))
            if number < len(self.containers):
                return {"@": number}
            self.containers.append(value)
        elif kind not in _EXACT and self._live is not None:
            return self._live(
                value,
                lambda part: self._encode(part, depth + 1),
                lambda part: self._contents(part, type(part), depth),
            )
        return self._contents(value, kind, depth)

    def _contents(self, value: Any, kind: type, depth: int) -> Any:
        for base, convert in _SCALARS:
            if issubclass(kind, base):
                return convert(value)
        for base, tag, elements in _SEQUENCES:
            if issubclass(kind, base):
                parts = self._elements(elements(value), depth)
                return parts if tag is None else {tag: parts}
        if issubclass(kind, dict):
            pairs = self._pairs(dict.items(value), depth)
            if self._live is not None and kind is collections.defaultdict:
                return {"dd": [self._encode(value.default_factory, depth + 1), pairs]}
            return {_MAPPINGS.get(kind, "d") if self._live is not None else "d": pairs}
        if kind is type({}.items()):
            return {"di": self._pairs(value, depth)}
        if kind is array.array:
            return {"A": [value.typecode, self._elements(value, depth)]}
        if kind.__module__ == "numpy" and hasattr(value, "tolist"):
            return self._encode(value.tolist(), depth + 1)
        if isinstance(value, collections.abc.Iterator):
            return {"it": self._elements(value, depth)}
        return {"o": [kind.__name__[:100], bool(value)]}

    def _elements(self, elements: Any, depth: int) -> list[Any]:
        if type(elements) is list and _are_plain(elements):
            self._count(len(elements))
            return list(elements)
        return [self._encode(element, depth + 1) for element in elements]

    def _pairs(self, items: Any, depth: int) -> list[list[Any]]:
        pairs = list(items)
        return [self._elements([pair[place] for pair in pairs], depth) for place in (0, 1)]

    def _count(self, items: int) -> None:
        self._items += items
        if self._items > _MAX_ITEMS:
            raise NotPlain(f"the value has more than {_MAX_ITEMS} parts")


def _are_plain(elements: list[Any]) -> bool:
    """Whether all elements are ints or texts that stand for themselves."""
    kinds = set(map(type, elements))
    if kinds == {int}:
        return -_PLAIN_INT < min(elements) and max(elements) < _PLAIN_INT
    return kinds == {str}


def _int(value: int) -> Any:
    value = int.__pos__(value)
    if -_PLAIN_INT < value < _PLAIN_INT:
        return value
    if value.bit_length() > 4 * MAX_MESSAGE:
        raise NotPlain(f"the value is larger than {MAX_MESSAGE} bytes")
    return {"i": hex(value)}


def _float(value: float) -> Any:
    value = float.__pos__(value)
    return value if math.isfinite(value) else {"f": repr(value)}


def _text(value: str) -> str:
    if str.__len__(value) > MAX_MESSAGE:
        raise NotPlain(f"the value is larger than {MAX_MESSAGE} bytes")
    return str.__str__(value)


def _bytes(tag: str) -> Any:
    def convert(value: bytes | bytearray) -> dict[str, str]:
        if len(memoryview(value)) > MAX_MESSAGE:
            raise NotPlain(f"the value is larger than {MAX_MESSAGE} bytes")
        return {tag: memoryview(value).tobytes().decode("latin-1")}

    return convert


_SCALARS: tuple[tuple[type, Any], ...] = (
    (int, _int),
    (float, _float),
    (str, _text),
    (complex, lambda value: {"c": [_float(value.real), _float(value.imag)]}),
    (bytes, _bytes("b")),
    (bytearray, _bytes("ba")),
    (range, lambda value: {"r": [_int(value.start), _int(value.stop), _int(value.step)]}),
    (Decimal, lambda value: {"D": str(value)}),
    (Fraction, lambda value: {"F": [_int(value.numerator), _int(value.denominator)]}),
    (datetime.datetime, lambda value: {"when": value.isoformat()}),
    (datetime.date, lambda value: {"day": value.isoformat()}),
    (datetime.time, lambda value: {"clock": value.isoformat()}),
    (datetime.timedelta, lambda value: {"span": [value.days, value.seconds, value.microseconds]}),
    (uuid.UUID, lambda value: {"uuid": str(value)}),
    (pathlib.PosixPath, lambda value: {"path": str(value)}),
    (pathlib.PurePosixPath, lambda value: {"pure": str(value)}),
    (type(...), lambda value: {"only": "Ellipsis"}),
    (type(NotImplemented), lambda value: {"only": "NotImplemented"}),
)
_SEQUENCES: tuple[tuple[type, str | None, Any], ...] = (
    (list, None, lambda value: value if type(value) is list else list.__iter__(value)),
    (tuple, "t", tuple.__iter__),
    (set, "s", set.__iter__),
    (frozenset, "fs", frozenset.__iter__),
    (collections.deque, "dq", collections.deque.__iter__),
    (slice, "sl", lambda value: (value.start, value.stop, value.step)),
    (type({}.keys()), "dk", iter),
    (type({}.values()), "dv", iter),
)
_MAPPINGS: dict[type, str] = {collections.Counter: "C", collections.OrderedDict: "od"}
_CHANGEABLE = (list, dict, set, bytearray, collections.deque, collections.defaultdict, *_MAPPINGS)
"""Types of which a function may change an argument in place."""
_EXACT = {
    *(kind for kind, *_ in _SCALARS), *(kind for kind, *_ in _SEQUENCES), *_CHANGEABLE,
    type({}.items()), array.array,
}  # fmt: skip


def is_data(value: Any) -> bool:
    """Whether the value itself is plain data; its elements may be something else."""
    return value is None or type(value) is bool or type(value) in _EXACT
