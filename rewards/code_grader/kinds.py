"""The kinds of tests that a program can be run against: asserts, cases and scripts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True)
class RowLimits:
    """Limits that one row sets for its program; None = those of the reward."""

    test_s: float | None = None
    """Seconds for a test."""
    memory_mb: int | None = None
    """MiB of memory."""


@dataclass(frozen=True, kw_only=True)
class AssertTests:
    """Tests in the form of code. They run in a sandbox of their own and call the program from there."""

    setup: tuple[str, ...]
    """Sources that run first, in the namespace of the tests."""
    names: Mapping[str, str]
    """The program's functions that the tests call: name in the tests -> name in the program."""
    sources: tuple[str, ...]
    """One source per test; or, if `recorded`, one source that reports the results of `count` tests."""
    recorded: bool
    count: int
    classes: frozenset[str] = frozenset()
    """Names in the tests that these use as classes."""
    repeated: frozenset[int] = frozenset()
    """Tests that may run again after they have passed: asserts in a loop, or in a function other than `check`."""


@dataclass(frozen=True, kw_only=True)
class Case:
    """One call and its expected value. All values are plain JSON data."""

    args: tuple[Any, ...]
    """Encoded as by `values.encode`, like `kwargs`."""
    kwargs: Mapping[str, Any]
    expected: Any
    tolerance: float | None
    """Tolerance for numbers, absolute or relative, whichever is larger; None = exact, including types."""
    loose: bool = False
    """Compare numbers as judges do: 1 is 1.0, and decimals may differ by a millionth."""
    or_else: Any = None
    """If `loose`: a second value that is right."""


@dataclass(frozen=True, kw_only=True)
class CaseTests:
    """Calls of one function with plain data."""

    entry_point: str
    """A name, or a method as in `Solution().f`."""
    cases: tuple[Case, ...]
    checker: str = ""
    """A source that defines check(args, value, expected); empty: equal values are right."""

    @property
    def count(self) -> int:
        return len(self.cases)


@dataclass(frozen=True, kw_only=True)
class ScriptTest:
    """One run of the whole program."""

    stdin: str
    stdout: str
    tolerance: float | None
    """Tolerance for the words that are numbers; None = as judges do, see `compare.same_output`."""


@dataclass(frozen=True, kw_only=True)
class ScriptTests:
    """Runs of a program that reads stdin and writes stdout."""

    runs: tuple[ScriptTest, ...]
    checker: str = "tokens"
    """A comparison of `compare.same_output`, or a source that defines check(stdin, stdout, expected)."""

    @property
    def count(self) -> int:
        return len(self.runs)


Tests = AssertTests | CaseTests | ScriptTests
