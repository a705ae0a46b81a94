"""What tests import of pytest and unittest, in the judge: no package is installed there. Every expectation that holds
is noted like an assert."""

from __future__ import annotations

import re
import sys
import types
import unittest
from collections.abc import Callable, Sequence
from typing import Any

from .program_errors import as_expected
from .standins import Unusable


def install(held: list[bool]) -> None:
    """Let tests import `pytest`, and count what unittest's methods find. held: gets an element per expectation that
    holds."""
    module: Any = types.ModuleType("pytest")
    module.approx = Approx
    module.raises = lambda kind, *call, match=None, **keywords: _raises(held, kind, match, call, keywords)
    module.mark = _Mark()
    module.fail = _fail
    module.__getattr__ = _lacks  # found by the import system, too
    sys.modules["pytest"] = module
    for name in dir(unittest.TestCase):
        if name.startswith("assert") and name not in ("assertRaises", "assertRaisesRegex", "assertWarns"):
            setattr(unittest.TestCase, name, _noted(getattr(unittest.TestCase, name), held))
    context: Any = unittest.case._AssertRaisesContext  # private: `assertRaises` has no other place to learn the outcome
    plain_exit = context.__exit__

    def noted_exit(self: Any, kind: Any, error: BaseException | None, trace: Any) -> Any:
        error = as_expected(error, self.expected)
        done = plain_exit(self, type(error) if error else None, error, trace)
        held.append(bool(done))
        return done

    context.__exit__ = noted_exit


def run_case(case: type[unittest.TestCase], name: str) -> None:
    """Run one method of a unittest class. Raises what it raises."""
    case(name).debug()  # errors, and a program's SkipTest, come through


class Approx:
    """pytest.approx: numbers within a tolerance, in lists, tuples and dicts."""

    def __init__(self, expected: Any, rel: float | None = None, abs: float | None = None, nan_ok: bool = False) -> None:
        self._expected, self._rel, self._abs, self._nan_ok = expected, rel, abs, nan_ok

    def __eq__(self, actual: object) -> bool:
        return self._close(actual, self._expected)

    __hash__ = None  # type: ignore[assignment]

    def _close(self, actual: Any, expected: Any) -> bool:
        if isinstance(expected, dict):
            return (
                isinstance(actual, dict)
                and actual.keys() == expected.keys()
                and all(self._close(actual[key], expected[key]) for key in expected)
            )
        if isinstance(expected, list | tuple):
            return (
                isinstance(actual, list | tuple)
                and len(actual) == len(expected)
                and all(map(self._close, actual, expected))
            )
        if not isinstance(expected, int | float | complex) or not isinstance(actual, int | float | complex):
            return type(actual) is type(expected) and bool(actual == expected)
        if actual != actual or expected != expected:
            return self._nan_ok and actual != actual and expected != expected
        relative = 1e-6 if self._rel is None and self._abs is None else (self._rel or 0.0)
        absolute = 1e-12 if self._abs is None else self._abs
        return actual == expected or abs(actual - expected) <= max(relative * abs(expected), absolute)


class _Mark:
    """pytest.mark: `parametrize`; other marks change nothing."""

    def __getattr__(self, name: str) -> Any:
        def mark(*arguments: Any, **_: Any) -> Any:
            return arguments[0] if arguments and callable(arguments[0]) else lambda function: function

        return mark

    @staticmethod
    def parametrize(names: str | Sequence[str], rows: Sequence[Any], **_: Any) -> Callable[..., Any]:
        words = [word.strip() for word in names.split(",")] if isinstance(names, str) else list(names)

        def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
            def test(**given: Any) -> None:
                for row in rows:
                    function(**given, **dict(zip(words, row if len(words) > 1 else [row], strict=True)))

            test.__name__ = function.__name__
            return test

        return decorate


class _Raised:
    value: BaseException


class _Expectation:
    def __init__(self, held: list[bool], kind: Any, match: str | None) -> None:
        self._held, self._kind, self._match = held, kind, match
        self._found = _Raised()

    def __enter__(self) -> _Raised:
        return self._found

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> bool:
        error = as_expected(error, self._kind)
        if error is None:
            raise AssertionError(f"did not raise {self._kind}")
        if not isinstance(error, self._kind):
            return False
        if self._match is not None and not re.search(self._match, str(error)):
            raise AssertionError(f"the error does not match {self._match!r:.100}")
        self._found.value = error
        self._held.append(True)
        return True


def _raises(held: list[bool], kind: Any, match: str | None, call: tuple[Any, ...], keywords: dict[str, Any]) -> Any:
    expectation = _Expectation(held, kind, match)
    if not call:
        return expectation
    with expectation as found:
        call[0](*call[1:], **keywords)
    return found


def _fail(reason: str = "", **_: Any) -> None:
    raise AssertionError(reason)


def _lacks(name: str) -> Any:
    if name.startswith("__"):
        raise AttributeError(name)
    raise Unusable(f"the tests use pytest.{name}, which the judge does not have")


def _noted(method: Any, held: list[bool]) -> Any:
    def check(self: Any, *arguments: Any, **keywords: Any) -> Any:
        value = method(self, *arguments, **keywords)
        held.append(True)
        return value

    return check
