"""Parses the forms in which data sets provide tests into three kinds: asserts, cases and scripts."""

from __future__ import annotations

import ast
import builtins
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from rewards.code_grader.name_resolution import TestsUnusable, called_names
from rewards.code_grader.program import defined_names, parse
from rewards.sandbox.inside import wire

_MAX_TESTS = 2000


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
    repeated: frozenset[int] = frozenset()
    """Tests that may run again after they have passed: asserts in a loop, or in a function other than `check`."""


@dataclass(frozen=True, kw_only=True)
class Case:
    """One call and its expected value. All values are plain JSON data."""

    args: tuple[Any, ...]
    """Encoded as by `wire.encode`, like `kwargs`."""
    kwargs: Mapping[str, Any]
    expected: Any
    tolerance: float | None
    """Tolerance for numbers, absolute or relative, whichever is larger; None = exact, including types."""


@dataclass(frozen=True, kw_only=True)
class CaseTests:
    """Calls of one function with plain data."""

    entry_point: str
    cases: tuple[Case, ...]

    @property
    def count(self) -> int:
        return len(self.cases)


@dataclass(frozen=True, kw_only=True)
class ScriptTest:
    """One run of the whole program."""

    stdin: str
    stdout: str
    tolerance: float | None
    """Tolerance for the words that are numbers; None = the same text except for trailing whitespace."""


@dataclass(frozen=True, kw_only=True)
class ScriptTests:
    """Runs of a program that reads stdin and writes stdout."""

    runs: tuple[ScriptTest, ...]

    @property
    def count(self) -> int:
        return len(self.runs)


Tests = AssertTests | CaseTests | ScriptTests


def read_tests(row: Mapping[str, Any]) -> Tests:
    """The tests of a row: `tests` in one of the forms of docs/rewards.md (or as JSON text), MBPP's `test_list` with
    `test_imports`, or HumanEval's `test` with `entry_point` and `prompt` (whose helpers the tests may use).
    Raises TestsUnusable."""
    tests = _given(row)
    if isinstance(tests, str) and tests.lstrip()[:1] in ("[", "{"):
        try:
            tests = json.loads(tests)
        except (ValueError, RecursionError) as error:
            raise TestsUnusable(f"the tests are not valid JSON: {error}") from None
    if isinstance(tests, str):
        return _module(tests, row)
    if isinstance(tests, Mapping):
        return _cases(tests)
    if not isinstance(tests, list | tuple) or not tests:
        raise TestsUnusable("there are no tests: give a non-empty list, or an object with `entry_point` and `cases`")
    if len(tests) > _MAX_TESTS:
        raise TestsUnusable(f"there are {len(tests)} tests: give at most {_MAX_TESTS}")
    if all(isinstance(test, str) for test in tests):
        return _lines(list(tests), row)
    if all(isinstance(test, Mapping) and "stdin" in test and "stdout" in test for test in tests):
        return ScriptTests(runs=tuple(_script(test) for test in tests))
    raise TestsUnusable("the tests must all be strings with asserts, or all objects with `stdin` and `stdout`")


def _given(row: Mapping[str, Any]) -> Any:
    for name in ("tests", "test_list", "test"):
        if row.get(name) is not None:
            return row[name]
    raise TestsUnusable("there are no tests: add a column `tests`, or `test_list`, or `test` with `entry_point`")


# --- tests that are code ----------------------------------------------------------------------------------------------


def _lines(lines: list[str], row: Mapping[str, Any]) -> AssertTests:
    trees = [_tree(line) for line in lines]
    for line, tree in zip(lines, trees, strict=True):
        if not any(isinstance(node, ast.Assert) for node in ast.walk(tree)):
            raise TestsUnusable(f"a test has no assert: {line[:100]}")
    setup = _setup(row)
    names = called_names(trees, setup, row)
    sources = tuple(_watch_asserts(tree) for tree in trees)
    return AssertTests(setup=tuple(setup), names=names, sources=sources, recorded=False, count=len(lines))


def _module(source: str, row: Mapping[str, Any]) -> AssertTests:
    """HumanEval's form: a module with `check(candidate)`, or with asserts at module level."""
    tree, entry_point, setup = _tree(source), row.get("entry_point"), _setup(row)
    names = called_names([tree], setup, row)
    if "check" in defined_names(tree):
        if not isinstance(entry_point, str) or not entry_point:
            raise TestsUnusable("`test` defines check(candidate), but there is no `entry_point`")
        # Passed under a reserved name, since the function may share its name with a helper of the tests (`sorted`,
        # `isclose`, `check`).
        tree.body += _tree("check(__candidate__)").body
        taken = {*dir(builtins), *defined_names(tree)}
        names = {"__candidate__": entry_point, **{name: name for name in names if name not in taken}}
        if entry_point in dir(builtins):  # the prompt's stub must not shadow the built-in function in the tests
            setup.append(f"globals().pop({entry_point!r}, None)")
    recorder = _record_asserts(tree)
    if recorder is None:  # the tests handle errors themselves, so the whole module is one test
        return AssertTests(setup=tuple(setup), names=names, sources=(_watch_asserts(tree),), recorded=False, count=1)
    if not recorder.count:
        raise TestsUnusable("the tests have no assert")
    return AssertTests(
        setup=tuple(setup),
        names=names,
        sources=(ast.unparse(tree),),
        recorded=True,
        count=recorder.count,
        repeated=frozenset(recorder.repeated),
    )


def _tree(source: str) -> ast.Module:
    tree = parse(source)
    if tree is None:
        raise TestsUnusable(f"a test is not valid Python: {source.strip()[:100]}")
    return tree


def _setup(row: Mapping[str, Any]) -> list[str]:
    """Sources that the tests depend on, including HumanEval's prompt, since some tests use a helper defined there."""
    imports = row.get("test_imports") or ()
    sources = [imports] if isinstance(imports, str) else [str(line) for line in imports]
    sources.append(str(row.get("test_setup_code") or ""))
    prompt = row.get("prompt")
    if isinstance(prompt, str) and row.get("entry_point"):
        tree = parse(prompt)
        if tree is not None and row["entry_point"] in defined_names(tree):
            sources.append(prompt)
    sources = [source for source in sources if source.strip()]
    for source in sources:
        _tree(source)
    return sources


def _watch_asserts(tree: ast.Module) -> str:
    """Instrument a test to report every assert that holds, and every `assert False` that is reached. So a test does not
    pass just by finishing, with all its asserts skipped, or failed and caught. A test with asserts of constants only
    passes if it finishes."""
    watcher = _Watcher()
    watcher.visit(tree)
    if not watcher.count:
        tree.body += ast.parse("__held__(True)").body
    return ast.unparse(ast.fix_missing_locations(tree))


class _Watcher(ast.NodeTransformer):
    count = 0
    """Number of asserts whose condition is not a constant."""

    def visit_Assert(self, node: ast.Assert) -> list[ast.stmt]:
        if not isinstance(node.test, ast.Constant):
            self.count += 1
            return [node, *ast.parse("__held__(True)").body]
        return [node] if node.test.value else [*ast.parse("__held__(False)").body, node]


def _record_asserts(tree: ast.Module) -> _Recorder | None:
    """Replace every assert with a report of its result that does not stop the run, so that each is a test of its own.
    Returns None and changes nothing if the code handles errors itself. Asserts of a constant are dropped, since the
    program cannot fail them."""
    if any(isinstance(node, ast.Try | ast.TryStar | ast.With | ast.Raise) for node in ast.walk(tree)):
        return None
    checks = [node for node in ast.walk(tree) if isinstance(node, ast.Name) and node.id == "check"]
    recorder = _Recorder(check_is_called_once=len(checks) == 1)
    recorder.visit(tree)
    ast.fix_missing_locations(tree)
    return recorder


class _Recorder(ast.NodeTransformer):
    def __init__(self, *, check_is_called_once: bool) -> None:
        self.count = 0
        self.repeated: set[int] = set()
        self._check_is_called_once = check_is_called_once
        self._around = 0

    def _visit_repeatable(self, node: Any) -> Any:
        """Visit code that may run more than once."""
        self._around += 1
        self.generic_visit(node)
        self._around -= 1
        return node

    visit_For = visit_While = visit_AsyncFor = visit_AsyncFunctionDef = visit_ClassDef = _visit_repeatable

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        if node.name == "check" and self._check_is_called_once:
            return self.generic_visit(node)
        return self._visit_repeatable(node)

    def visit_Assert(self, node: ast.Assert) -> ast.stmt:
        if isinstance(node.test, ast.Constant):
            return ast.Pass()
        [attempt] = ast.parse(
            f"try:\n    __record__({self.count}, None)\n"
            f"except Exception as __error__:\n    __record__({self.count}, False, __error__)"
        ).body
        assert isinstance(attempt, ast.Try) and isinstance(attempt.body[0], ast.Expr)
        attempt.body[0].value.args[1] = node.test  # type: ignore[attr-defined]
        if self._around:
            self.repeated.add(self.count)
        self.count += 1
        return attempt


# --- tests that are data ----------------------------------------------------------------------------------------------


def _cases(tests: Mapping[str, Any]) -> CaseTests:
    entry_point, cases = tests.get("entry_point"), tests.get("cases")
    if not isinstance(entry_point, str) or not isinstance(cases, list) or not cases:
        raise TestsUnusable("the tests are an object: it needs `entry_point` (a name) and `cases` (a non-empty list)")
    if len(cases) > _MAX_TESTS:
        raise TestsUnusable(f"there are {len(cases)} tests: give at most {_MAX_TESTS}")
    return CaseTests(entry_point=entry_point, cases=tuple(_case(case, tests.get("tolerance")) for case in cases))


def _case(case: Any, tolerance: Any) -> Case:
    if not isinstance(case, Mapping) or "expected" not in case:
        raise TestsUnusable(f"a case must be an object with `args` and `expected`: {str(case)[:100]}")
    args, kwargs = case.get("args") or [], case.get("kwargs") or {}
    if not isinstance(args, list) or not isinstance(kwargs, Mapping):
        raise TestsUnusable(f"a case needs `args` that are a list, and `kwargs` that are an object: {str(case)[:100]}")
    try:
        return Case(
            args=tuple(wire.encode(value) for value in args),
            kwargs={str(name): wire.encode(value) for name, value in kwargs.items()},
            expected=case["expected"],
            tolerance=_tolerance(case.get("tolerance", tolerance)),
        )
    except wire.NotPlain as error:
        raise TestsUnusable(f"a case's arguments cannot be passed: {error}") from None


def _script(test: Mapping[str, Any]) -> ScriptTest:
    tolerance = _tolerance(test.get("tolerance"))
    return ScriptTest(stdin=str(test["stdin"] or ""), stdout=str(test["stdout"] or ""), tolerance=tolerance)


def _tolerance(value: Any) -> float | None:
    if value is not None and (isinstance(value, bool) or not isinstance(value, int | float) or not value >= 0):
        raise TestsUnusable(f"a tolerance must be a number >= 0: {value!r:.50}")
    return None if value is None else float(value)
