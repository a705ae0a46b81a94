"""Containers of the program's objects that the tests hold. They arrive as copies; what the tests change in one
(`stack.items.append(3)`) is changed in the program, too, before that is asked anything further."""

from __future__ import annotations

import operator
import sys
from collections.abc import Callable
from typing import Any

from .wire import MAX_DEPTH, deep

_KINDS = (list, dict, set, bytearray)
_OWN_REFERENCES = 2
"""References to a container that only this module holds: a variable, and the argument of getrefcount."""


class Lent:
    """The containers that the tests got from the program."""

    def __init__(self, ask: Callable[..., Any]) -> None:
        """ask: (operation, *arguments) -> value."""
        self._ask = ask
        self._held: list[tuple[tuple[Any, ...], Any, Any]] = []

    def note(self, way: tuple[Any, ...], value: Any) -> None:
        """Remember a container. way: the operation that got it, and its arguments."""
        if type(value) in _KINDS:
            try:
                with deep():
                    self._held.append((way, value, copied(value)))
            except RecursionError:  # it contains itself
                return

    def give_back(self) -> None:
        """Tell the program what the tests have changed, and forget what they no longer hold."""
        held, self._held = self._held, []
        while held:
            way, value, old = held.pop()
            with deep():
                changed = not _same(value, old)
            if changed:
                self._ask("refill", value, *way)
            if sys.getrefcount(value) <= _OWN_REFERENCES:
                continue
            if changed:
                self.note(way, value)
            else:
                self._held.append((way, value, old))

    def clear(self) -> None:
        """Forget all: they belonged to another test."""
        self._held.clear()


def copied(value: Any, depth: int = 0) -> Any:
    """A copy of plain containers; other objects stay themselves. Raises RecursionError for what no value is so deep as
    to be: a container that contains itself."""
    if depth > MAX_DEPTH:
        raise RecursionError("a container contains itself")
    if type(value) in (list, tuple):
        return type(value)([copied(item, depth + 1) for item in value])
    if type(value) is dict:
        return {key: copied(item, depth + 1) for key, item in value.items()}
    return value.copy() if type(value) in (set, bytearray) else value


def _same(value: Any, old: Any) -> bool:
    """Whether a container holds the same objects as its copy."""
    if type(value) is not type(old):
        return False
    if isinstance(value, bytearray):
        return value == old
    if type(value) is set:
        return {*map(id, value)} == {*map(id, old)}
    if type(value) is dict:
        return len(value) == len(old) and _same([*value, *value.values()], [*old, *old.values()])
    if type(value) in (list, tuple):
        if len(value) != len(old):
            return False
        # First as fast as can be: this is asked before every question, and the copy of a container is never the same.
        return all(map(operator.is_, value, old)) or all(map(_same, value, old))
    return value is old
