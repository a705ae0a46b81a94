"""Messages between host and sandbox (a length, then JSON), and an encoding of Python values as JSON that keeps types.

The reader trusts no input: whatever the bytes, it creates only built-in objects of limited size and depth."""

from __future__ import annotations

import collections.abc
import json
import math
import os
import struct
from decimal import Decimal
from fractions import Fraction
from typing import Any

HEADER = struct.Struct(">I")
MAX_MESSAGE = 1 << 22
"""Maximum size of a message in bytes. The sender refuses a larger value, and the reader rejects a larger size."""
_MAX_DEPTH = 60
_MAX_ITEMS = 500_000
_PLAIN_INT = 1 << 53


class NotPlain(Exception):
    """A value that cannot be encoded: too large, or nested too deeply."""


class NotData(NotPlain):
    """A value that is not plain data, where only plain data is allowed."""


class Opaque:
    """Placeholder for a value that is not plain data (a match, a function). Equals only itself, and has the truth value
    of the original."""

    def __init__(self, kind: str, truth: bool) -> None:
        self._kind, self._truth = kind, truth

    def __bool__(self) -> bool:
        return self._truth

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(f"a {self._kind} of the program is not plain data: a test cannot use its {name}")

    def __repr__(self) -> str:
        return f"<{self._kind}>"


def pack(message: dict[str, Any]) -> bytes:
    """A message as bytes. Raises NotPlain if it is too large."""
    body = json.dumps(message, separators=(",", ":")).encode("ascii")
    if len(body) > MAX_MESSAGE:
        raise NotPlain(f"the value is larger than {MAX_MESSAGE} bytes")
    return HEADER.pack(len(body)) + body


def unpack(body: bytes) -> dict[str, Any]:
    """The message in a body. Raises ValueError if the body is not a message."""
    try:
        message = json.loads(body)
    except RecursionError:
        raise ValueError("nested too deeply") from None
    if type(message) is not dict:
        raise ValueError("not a message")
    return message


def send(fd: int, message: dict[str, Any]) -> None:
    """Write a message to a blocking descriptor. Raises NotPlain, with nothing written, if it is too large."""
    data = memoryview(pack(message))
    while data:
        data = data[os.write(fd, data) :]


def receive(fd: int) -> dict[str, Any] | None:
    """The next message from the trusted host, read from a blocking descriptor; None at end of file."""
    header = _read(fd, HEADER.size)
    return unpack(_read(fd, HEADER.unpack(header)[0])) if header else None


def _read(fd: int, size: int) -> bytes:
    parts = bytearray()
    while len(parts) < size:
        part = os.read(fd, size - len(parts))
        if not part:
            return b""
        parts += part
    return bytes(parts)


# --- values -----------------------------------------------------------------------------------------------------------
# Strings, bools, None, lists, ints below 2**53 and finite floats stay as they are; other values become {tag: content}.


def encode(value: Any, *, opaque: bool = True) -> Any:
    """A value as JSON. An instance of a subclass of a built-in type is encoded as the built-in type. opaque: encode
    values that are not plain data as Opaque instead of raising NotData. Raises NotPlain."""
    return _Encoder(opaque).encode(value, 0)


class _Encoder:
    def __init__(self, opaque: bool) -> None:
        self.items = 0
        self.opaque = opaque

    def encode(self, value: Any, depth: int) -> Any:
        self.items += 1
        if depth > _MAX_DEPTH:
            raise NotPlain(f"the value is nested more than {_MAX_DEPTH} deep")
        if self.items > _MAX_ITEMS:
            raise NotPlain(f"the value has more than {_MAX_ITEMS} parts")
        kind = type(value)
        if value is None or kind is bool:
            return value
        for base, convert in _SCALARS:
            if issubclass(kind, base):
                return convert(value)
        for base, tag, elements in _CONTAINERS:
            if issubclass(kind, base):
                parts = [self.encode(element, depth + 1) for element in elements(value)]
                return parts if tag is None else {tag: parts}
        if issubclass(kind, dict):
            return {"d": self._pairs(dict.items(value), depth)}
        if kind is type({}.items()):
            return {"di": self._pairs(value, depth)}
        if isinstance(value, collections.abc.Iterator):  # a generator, map or zip, which a test can only iterate over
            return {"it": [self.encode(element, depth + 1) for element in value]}
        if not self.opaque:
            if kind is Opaque:
                raise NotPlain(f"{value!r} of the program is not plain data")
            raise NotData(f"a value of type {kind.__name__} is not plain data")
        return {"o": [kind.__name__[:100], bool(value)]}

    def _pairs(self, items: Any, depth: int) -> list[list[Any]]:
        return [[self.encode(key, depth + 1), self.encode(item, depth + 1)] for key, item in items]


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
)
_CONTAINERS: tuple[tuple[type, str | None, Any], ...] = (
    (list, None, list.__iter__),
    (tuple, "t", tuple.__iter__),
    (set, "s", set.__iter__),
    (frozenset, "fs", frozenset.__iter__),
    (collections.deque, "dq", collections.deque.__iter__),
    (type({}.keys()), "dk", iter),
    (type({}.values()), "dv", iter),
)


def decode(data: Any) -> Any:
    """The inverse of `encode`, in built-in types. Raises ValueError for anything that `encode` does not produce."""
    try:
        return _decode(data, 0)
    except (TypeError, KeyError, IndexError, ArithmeticError, RecursionError) as error:
        raise ValueError(f"not an encoded value: {error}") from None


def _decode(data: Any, depth: int) -> Any:
    if depth > _MAX_DEPTH:
        raise ValueError("nested too deeply")
    if data is None or type(data) in (bool, int, float, str):
        return data
    if type(data) is list:
        return [_decode(part, depth + 1) for part in data]
    if type(data) is not dict or len(data) != 1:
        raise ValueError("not an encoded value")
    [(tag, content)] = data.items()
    if tag in _DECODERS_PAIRS:
        return _DECODERS_PAIRS[tag](
            {_decode(key, depth + 1): _decode(value, depth + 1) for key, value in _list(content)}
        )
    if tag in _DECODERS_LIST:
        return _DECODERS_LIST[tag]([_decode(part, depth + 1) for part in _list(content)])
    if tag == "o" and type(content) is list and list(map(type, content)) == [str, bool]:
        return Opaque(*content)
    if tag in _DECODERS_TEXT:
        if type(content) is not str:
            raise ValueError("not an encoded value")
        return _DECODERS_TEXT[tag](content)
    raise ValueError(f"unknown tag {tag!r:.20}")


def _list(content: Any) -> list[Any]:
    if type(content) is not list:
        raise ValueError("not an encoded value")
    return content


_DECODERS_PAIRS: dict[str, Any] = {"d": lambda pairs: pairs, "di": lambda pairs: pairs.items()}
_DECODERS_LIST: dict[str, Any] = {
    "t": tuple,
    "s": set,
    "fs": frozenset,
    "dq": collections.deque,
    "it": iter,
    "dk": lambda keys: dict.fromkeys(keys).keys(),
    "dv": lambda values: dict(enumerate(values)).values(),
    "c": lambda parts: complex(*map(_number, parts)),
    "r": lambda parts: range(*parts),
    "F": lambda parts: Fraction(*parts),
}
_DECODERS_TEXT: dict[str, Any] = {
    "i": lambda text: int(text, 16),
    "f": lambda text: {"inf": math.inf, "-inf": -math.inf, "nan": math.nan}[text],
    "b": lambda text: text.encode("latin-1"),
    "ba": lambda text: bytearray(text, "latin-1"),
    "D": Decimal,
}


def _number(value: Any) -> float:
    if type(value) not in (int, float):
        raise ValueError("not a number")
    return float(value)
