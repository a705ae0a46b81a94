"""Messages between host and sandbox: a length, then JSON. The reader trusts no input."""

from __future__ import annotations

import contextlib
import gc
import json
import os
import struct
import sys
from collections.abc import Iterator
from typing import Any

HEADER = struct.Struct(">I")
MAX_MESSAGE = 1 << 25
"""Maximum size of a message in bytes. The sender refuses a larger value, and the reader rejects a larger size."""

MAX_DEPTH = 1000
_FRAMES = 20 * MAX_DEPTH
"""Recursion limit while a value is encoded or decoded: several calls for each level."""


class NotPlain(Exception):
    """A value that cannot be encoded: too large, or nested too deeply."""


class NotData(NotPlain):
    """A value that is not plain data, where only plain data is allowed."""


@contextlib.contextmanager
def deep() -> Iterator[None]:
    """Lets nested values be handled, whatever recursion limit a program has set for itself, and large ones without
    collecting garbage, of which there is none."""
    usual, collects = sys.getrecursionlimit(), gc.isenabled()
    sys.setrecursionlimit(max(usual, _FRAMES))
    gc.disable()
    try:
        yield
    finally:
        sys.setrecursionlimit(usual)
        if collects:
            gc.enable()


def pack(message: dict[str, Any]) -> bytes:
    """A message as bytes. Raises NotPlain if it is too large."""
    try:
        with deep():
            body = json.dumps(message, separators=(",", ":")).encode("ascii")
    except RecursionError:
        raise NotPlain("the value is nested too deeply") from None
    if len(body) > MAX_MESSAGE:
        raise NotPlain(f"the value is larger than {MAX_MESSAGE} bytes")
    return HEADER.pack(len(body)) + body


def unpack(body: bytes) -> dict[str, Any]:
    """The message in a body. Raises ValueError if the body is not a message."""
    try:
        with deep():
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
