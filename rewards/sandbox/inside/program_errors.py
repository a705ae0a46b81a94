"""The program's errors as the tests see them: of classes that the tests' `except` recognizes."""

from __future__ import annotations

import builtins
import sys
import unittest
from collections.abc import Callable
from typing import Any

from . import values

_NEVER = (AssertionError, StopIteration, StopAsyncIteration, GeneratorExit, unittest.SkipTest)
"""Errors of the program that must not look like the test's own. StopIteration, for example, would end a loop of the
test early, and the test would pass."""
_EXPECTED = (AssertionError, StopIteration, StopAsyncIteration)
"""Of these, those that a test may expect: `with raises(AssertionError)`."""
_SEEN = (Exception, SystemExit, KeyboardInterrupt)
"""Errors that do not end the judge, but the test."""


class ProgramError(Exception):
    """The program raised something other than an ordinary error, or did not answer."""

    kind = ""
    """Name of the class of what it raised."""


def as_expected(error: BaseException | None, expected: Any) -> BaseException | None:
    """The error that a test expects by its class, if the program has raised that; else the error as it is."""
    for kind in expected if isinstance(expected, tuple) else (expected,):
        if type(error) is ProgramError and kind in _EXPECTED and kind.__name__ == error.kind:
            return kind(*error.args)
    return error


class Errors:
    """The error classes of one program."""

    def __init__(self, ask: Callable[..., Any], live: values.DecodeLive) -> None:
        """ask: (operation, *arguments) -> value. live: decodes the program's objects."""
        self._ask, self._live = ask, live
        self._classes: dict[int | str, type] = {}

    def error(self, answer: dict[str, Any]) -> BaseException:
        """The program's error as an object that the tests' `except` recognizes."""
        kind, text = answer["error"]
        try:
            number, described, arguments = answer["raised"]
            error_class = self.error_class(described)
            decoded = values.Decoder(self._live).decode(arguments)
            error = error_class.__new__(error_class, *decoded)
            error.args = tuple(decoded)
            if isinstance(error, SystemExit):
                error.code = decoded[0] if decoded else None
            if error_class is ProgramError and described == f"builtins:{kind}":
                error.kind = kind
            if hasattr(error_class, "_number_of_error"):
                error._number_of_error, error._text = int(number), text
            return error if isinstance(error, BaseException) else ProgramError(f"{kind}: {text}")
        except (KeyError, ValueError, TypeError):  # not from the program's own code (it has ended, say), or malformed
            error_class = getattr(builtins, kind, ProgramError)
            if not _is_ordinary(error_class):
                error_class = ProgramError
            try:
                return error_class(text if error_class is not ProgramError else f"{kind}: {text}")
            except TypeError:  # some errors, such as UnicodeDecodeError, take more than a message
                return ProgramError(f"{kind}: {text}")

    def error_class(self, described: Any) -> type:
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
        built = [base for base in map(self.error_class, bases) if base is not object]
        return self._with_attributes(number, name, tuple(dict.fromkeys(built)) or (ProgramError,))

    def _with_attributes(self, key: int | str, name: str, bases: tuple[type, ...]) -> type:
        if key not in self._classes:

            def attribute(error: Any, name: str) -> Any:
                return self._ask("getattr", error, name)

            names = {"_number_of_error": -1, "_text": "", "__str__": lambda error: error._text}
            self._classes[key] = type(name, bases, {**names, "__getattr__": attribute})
        return self._classes[key]


def _is_ordinary(kind: Any) -> bool:
    """Whether the tests may see an error of this class as what it is."""
    return isinstance(kind, type) and issubclass(kind, _SEEN) and not issubclass(kind, _NEVER)
