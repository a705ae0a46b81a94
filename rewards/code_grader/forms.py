"""The forms in which data sets give their tests, read into three kinds."""

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
    """Tests that are code. They run apart from the program, which is called from there."""

    setup: tuple[str, ...]
    """Sources that run first, in one namespace."""
    names: Mapping[str, str]
    """The program's functions that the tests call: the name there -> the program's."""
    sources: tuple[str, ...]
    """One source a test; or, when `recorded`, one source that reports `count` tests itself."""
    recorded: bool
    count: int
    repeated: frozenset[int] = frozenset()
    """Tests that may be asked again after they have passed: asserts in a loop, or in a function other than `check`."""


@dataclass(frozen=True, kw_only=True)
class Case:
    """One call and what should come out; all values as plain JSON."""

    args: tuple[Any, ...]
    """Encoded (see `wire.encode`), as they are sent."""
    kwargs: Mapping[str, Any]
    expected: Any
    tolerance: float | None
    """For numbers, absolute or relative, whichever is larger; None = exact, types included."""


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
    """For the numbers among the words; None = the same text, but for blanks at the ends of lines."""


@dataclass(frozen=True, kw_only=True)
class ScriptTests:
    """Runs of a program that reads and writes text."""

    runs: tuple[ScriptTest, ...]

    @property
    def count(self) -> int:
        return len(self.runs)


Tests = AssertTests | CaseTests | ScriptTests


def read_tests(row: Mapping[str, Any]) -> Tests:
    """The tests of a row: `tests` in one of the forms of docs/rewards.md (or its JSON text), MBPP's `test_list` with
    `test_imports`, HumanEval's `test` with `entry_point` and, for the helpers in it, `prompt`. Raises TestsUnusable."""
    tests = _given(row)
    if isinstance(tests, str) and tests.lstrip()[:1] in ("[", "{"):
        try:
            tests = json.loads(tests)
        except (ValueError, RecursionError) as error:
            raise TestsUnusable(f"the tests are no JSON: {error}") from None
    if isinstance(tests, str):
        return _module(tests, row)
    if isinstance(tests, Mapping):
        return _cases(tests)
    if not isinstance(tests, list | tuple) or not tests:
        raise TestsUnusable("there are no tests: a non-empty list, or an object with entry_point and cases, is needed")
    if len(tests) > _MAX_TESTS:
        raise TestsUnusable(f"{len(tests)} tests: at most {_MAX_TESTS} are run")
    if all(isinstance(test, str) for test in tests):
        return _lines(list(tests), row)
    if all(isinstance(test, Mapping) and "stdin" in test and "stdout" in test for test in tests):
        return ScriptTests(runs=tuple(_script(test) for test in tests))
    raise TestsUnusable("the tests are neither all assert lines nor all objects with stdin and stdout")


def _given(row: Mapping[str, Any]) -> Any:
    for name in ("tests", "test_list", "test"):
        if row.get(name) is not None:
            return row[name]
    raise TestsUnusable("there are no tests: a column `tests` is needed, or `test_list`, or `test` with `entry_point`")


# --- tests that are code -----------------------------------------------------------------------------------------------


def _lines(lines: list[str], row: Mapping[str, Any]) -> AssertTests:
    trees = [_tree(line) for line in lines]
    for line, tree in zip(lines, trees, strict=True):
        if not any(isinstance(node, ast.Assert) for node in ast.walk(tree)):
            raise TestsUnusable(f"a test asserts nothing: {line[:100]}")
    setup = _setup(row)
    names = called_names(trees, setup, row)
    sources = tuple(_watch_asserts(tree) for tree in trees)
    return AssertTests(setup=tuple(setup), names=names, sources=sources, recorded=False, count=len(lines))


def _module(source: str, row: Mapping[str, Any]) -> AssertTests:
    """HumanEval's form: a module with `check(candidate)`, or with asserts at its top."""
    tree, entry_point, setup = _tree(source), row.get("entry_point"), _setup(row)
    names = called_names([tree], setup, row)
    if "check" in defined_names(tree):
        if not isinstance(entry_point, str) or not entry_point:
            raise TestsUnusable("`test` defines check(candidate), but there is no `entry_point`")
        # Under a name of its own: the function may be called like a helper of the tests (`sorted`, `isclose`, `check`).
        tree.body += _tree("check(__candidate__)").body
        taken = {*dir(builtins), *defined_names(tree)}
        names = {"__candidate__": entry_point, **{name: name for name in names if name not in taken}}
        if entry_point in dir(builtins):  # nor may the prompt's stub stand in the tests' way
            setup.append(f"globals().pop({entry_point!r}, None)")
    recorder = _record_asserts(tree)
    if recorder is None:  # it handles errors itself: passed when it runs through
        return AssertTests(setup=tuple(setup), names=names, sources=(_watch_asserts(tree),), recorded=False, count=1)
    if not recorder.count:
        raise TestsUnusable("the tests assert nothing")
    return AssertTests(
        setup=tuple(setup), names=names, sources=(ast.unparse(tree),), recorded=True, count=recorder.count,
        repeated=frozenset(recorder.repeated),
    )  # fmt: skip


def _tree(source: str) -> ast.Module:
    tree = parse(source)
    if tree is None:
        raise TestsUnusable(f"a test is no Python: {source.strip()[:100]}")
    return tree


def _setup(row: Mapping[str, Any]) -> list[str]:
    """Sources that the tests rely on. HumanEval's prompt is one: some tests use a helper that it defines."""
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
    """The source of a test that reports each assert that held, and an `assert False` that was reached: running through
    is no pass where every other assert was skipped, or failed and was caught. A test without others passes at its end."""
    watcher = _Watcher()
    watcher.visit(tree)
    if not watcher.count:
        tree.body += ast.parse("__held__(True)").body
    return ast.unparse(ast.fix_missing_locations(tree))


class _Watcher(ast.NodeTransformer):
    count = 0
    """Asserts of something that is no constant."""

    def visit_Assert(self, node: ast.Assert) -> list[ast.stmt]:
        if not isinstance(node.test, ast.Constant):
            self.count += 1
            return [node, *ast.parse("__held__(True)").body]
        return [node] if node.test.value else [*ast.parse("__held__(False)").body, node]


def _record_asserts(tree: ast.Module) -> _Recorder | None:
    """Turn every assert into a report that goes on either way, so that each is one test. None, and nothing done, where the
    code around handles errors. Asserts of a constant are dropped: nobody can fail them."""
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

    def _visit_what_may_run_again(self, node: Any) -> Any:
        self._around += 1
        self.generic_visit(node)
        self._around -= 1
        return node

    visit_For = visit_While = visit_AsyncFor = visit_AsyncFunctionDef = visit_ClassDef = _visit_what_may_run_again

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        if node.name == "check" and self._check_is_called_once:
            return self.generic_visit(node)
        return self._visit_what_may_run_again(node)

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


# --- tests that are data -----------------------------------------------------------------------------------------------


def _cases(tests: Mapping[str, Any]) -> CaseTests:
    entry_point, cases = tests.get("entry_point"), tests.get("cases")
    if not isinstance(entry_point, str) or not isinstance(cases, list) or not cases:
        raise TestsUnusable("the tests are an object without `entry_point` (a name) and `cases` (a list)")
    if len(cases) > _MAX_TESTS:
        raise TestsUnusable(f"{len(cases)} tests: at most {_MAX_TESTS} are run")
    return CaseTests(entry_point=entry_point, cases=tuple(_case(case, tests.get("tolerance")) for case in cases))


def _case(case: Any, tolerance: Any) -> Case:
    if not isinstance(case, Mapping) or "expected" not in case:
        raise TestsUnusable(f"a case is no object with `args` and `expected`: {str(case)[:100]}")
    args, kwargs = case.get("args") or [], case.get("kwargs") or {}
    if not isinstance(args, list) or not isinstance(kwargs, Mapping):
        raise TestsUnusable(f"a case's `args` are no list, or its `kwargs` no object: {str(case)[:100]}")
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
        raise TestsUnusable(f"a tolerance is no number >= 0: {value!r:.50}")
    return None if value is None else float(value)
