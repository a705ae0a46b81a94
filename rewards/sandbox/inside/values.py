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
from collections.abc import Callable
from decimal import Decimal
from fractions import Fraction
from typing import Any

from .wire import MAX_DEPTH, MAX_MESSAGE, NotPlain, deep

_MAX_ITEMS = 4_000_000
_PLAIN_INT = 1 << 53
Part = Callable[[Any], Any]
EncodeLive = Callable[[Any, Part, Part], Any]
"""Encodes a value that is not plain data as {tag: content}: (value, encoder of further values, encoder of one as its
built-in type). Raises NotData if it cannot."""
DecodeLive = Callable[[str, Any, Part], Any]
"""The object for {tag: content}, given a decoder of its parts. Raises ValueError."""


def encode(value: Any, live: EncodeLive | None = None) -> Any:
    """A value as JSON. Without `live`, instances of subclasses are encoded as the built-in type, iterators by their
    elements, and everything else as an object without content. Raises NotPlain."""
    return Encoder(live).encode(value)


def decode(data: Any) -> Any:
    """The inverse of `encode`, in built-in types. Raises ValueError for anything that `encode` does not produce."""
    return Decoder(None).decode(data)


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
    (datetime.timedelta, lambda value: {"span": [value.days, value.seconds, value.microseconds]}),
)
_SEQUENCES: tuple[tuple[type, str | None, Any], ...] = (
    (list, None, lambda value: value if type(value) is list else list.__iter__(value)),
    (tuple, "t", tuple.__iter__),
    (set, "s", set.__iter__),
    (frozenset, "fs", frozenset.__iter__),
    (collections.deque, "dq", collections.deque.__iter__),
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
}
