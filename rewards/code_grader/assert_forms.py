"""Reads tests that are code: assert lines, HumanEval's `check(candidate)`, and test functions as pytest or unittest
would collect them."""

from __future__ import annotations

import ast
import builtins
import copy
import re
import sys
from collections.abc import Iterator, Mapping
from typing import Any

from rewards.code_grader.instrument import record_asserts, watch_asserts, with_arguments_before, with_kinds
from rewards.code_grader.kinds import AssertTests
from rewards.code_grader.name_resolution import TestsUnusable, called_names, class_names
from rewards.code_grader.out_of_reach import out_of_reach
from rewards.code_grader.program import defined_names, parse

_TOOLS = frozenset({"pytest", "unittest"})
"""Modules of the tests that the judge provides."""
_PROGRAM = re.compile(r"(?:\w*solution|\w*module|main|program|candidate|submission|answer|code|__main__)")
"""Names under which tests import the program."""


def read_lines(lines: list[str], row: Mapping[str, Any], packages: frozenset[str]) -> AssertTests:
    """Each line is one test. packages: those that the judge has. Raises TestsUnusable."""
    trees = [_prepared(line, row, packages) for line in lines]
    for line, tree in zip(lines, trees, strict=True):
        if not _checks_something(tree):
            raise TestsUnusable(f"a test has no assert: {line[:100]}")
        tree.body += [node for call in _uncalled_tests(tree) for node in _tree(call).body]
    setup = _setup(row)
    names = called_names(trees, setup, row)
    return AssertTests(
        setup=tuple(setup),
        names=names,
        sources=tuple(watch_asserts(with_kinds(with_arguments_before(tree, names))) for tree in trees),
        recorded=False,
        count=len(lines),
        classes=class_names(trees, names),
    )


def read_module(source: str, row: Mapping[str, Any], packages: frozenset[str]) -> AssertTests:
    """A module with `check(candidate)`, with test functions, or with asserts at module level. Raises TestsUnusable."""
    tree, entry_point, setup = _prepared(source, row, packages), row.get("entry_point"), _setup(row)
    names = called_names([tree], setup, row)
    classes = class_names([tree], names)
    has_check = "check" in defined_names(tree)
    if has_check:
        if not isinstance(entry_point, str) or not entry_point:
            raise TestsUnusable("`test` defines check(candidate), but there is no `entry_point`")
        # Passed under a reserved name, since the function may share its name with a helper of the tests (`sorted`,
        # `isclose`, `check`).
        tree.body += _tree("check(__candidate__)").body
        taken = {*dir(builtins), *defined_names(tree)}
        names = {"__candidate__": entry_point, **{name: own for name, own in names.items() if name not in taken}}
        if entry_point in dir(builtins):  # the prompt's stub must not shadow the built-in function in the tests
            setup.append(f"globals().pop({entry_point!r}, None)")
    if not _checks_something(tree):
        raise TestsUnusable("the tests have no assert")
    calls = [] if has_check else _uncalled_tests(tree)
    with_kinds(with_arguments_before(tree, names))
    if calls:  # each test function is a test
        sources = []
        for call in calls:
            test = copy.deepcopy(tree)
            test.body += _tree(call).body
            sources.append(watch_asserts(test))
        return AssertTests(
            setup=tuple(setup), names=names, sources=tuple(sources), recorded=False, count=len(calls), classes=classes
        )
    recorder = record_asserts(tree)
    if recorder is None:  # the tests handle errors themselves, so the whole module is one test
        sources = [watch_asserts(tree)]
        return AssertTests(
            setup=tuple(setup), names=names, sources=tuple(sources), recorded=False, count=1, classes=classes
        )
    if not recorder.count:
        raise TestsUnusable("the tests have no assert")
    return AssertTests(
        setup=tuple(setup),
        names=names,
        sources=(ast.unparse(tree),),
        recorded=True,
        count=recorder.count,
        classes=classes,
        repeated=frozenset(recorder.repeated),
    )


def _tree(source: str) -> ast.Module:
    tree = parse(source)
    if tree is None:
        raise TestsUnusable(f"a test is not valid Python: {source.strip()[:100]}")
    return tree


def _prepared(source: str, row: Mapping[str, Any], packages: frozenset[str]) -> ast.Module:
    """The tree of a test without what concerns its file: the import of the program, and the main guard. Raises
    TestsUnusable if it needs what the judge does not have."""
    tree = _tree(source.replace("\r\n", "\n"))
    tree.body = [kept for node in tree.body for kept in _unwrapped(node)]
    guarded = {id(part) for node in ast.walk(tree) if isinstance(node, ast.Try) for part in ast.walk(node)}
    for node in ast.walk(tree):
        if id(node) in guarded:
            continue
        modules = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        modules += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        for module in modules:
            if module.partition(".")[0] not in sys.stdlib_module_names | _TOOLS | packages:
                raise TestsUnusable(f"the tests import {module}, which the sandbox does not have")
    if found := out_of_reach(tree, row.get("entry_point")):
        raise TestsUnusable(f"the tests use {found}, which does not reach the program in a sandbox of its own")
    return tree


def _unwrapped(node: ast.stmt) -> list[ast.stmt]:
    if isinstance(node, ast.ImportFrom) and (node.level or _PROGRAM.fullmatch(node.module or "")):
        renamed = [alias for alias in node.names if alias.asname]
        return [statement for alias in renamed for statement in _tree(f"{alias.asname} = {alias.name}").body]
    if isinstance(node, ast.If) and "__name__" in {
        part.id for part in ast.walk(node.test) if isinstance(part, ast.Name)
    }:
        runs = {part.attr for part in ast.walk(node) if isinstance(part, ast.Attribute)}
        return [] if "main" in runs else node.body
    return [node]


def _checks_something(tree: ast.Module) -> bool:
    """Whether the code has an assert, or calls a function of pytest or unittest that is one."""
    return any(
        isinstance(node, ast.Assert)
        or (isinstance(node, ast.Attribute) and (node.attr == "raises" or node.attr.startswith("assert")))
        for node in ast.walk(tree)
    )


def _uncalled_tests(tree: ast.Module) -> list[str]:
    """Calls of the test functions and methods that nobody calls. Raises TestsUnusable if one needs arguments."""
    used = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)}
    calls = []
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            if node.name.startswith("test") and node.name not in used:
                _refuse_fixtures(node, method=False)
                run = "__import__('asyncio').run({}())" if isinstance(node, ast.AsyncFunctionDef) else "{}()"
                calls.append(run.format(node.name))
        elif isinstance(node, ast.ClassDef) and node.name not in used:
            calls += _uncalled_methods(node)
    return calls


def _uncalled_methods(node: ast.ClassDef) -> Iterator[str]:
    bases = {part.attr if isinstance(part, ast.Attribute) else getattr(part, "id", "") for part in node.bases}
    for method in node.body:
        if not isinstance(method, ast.FunctionDef) or not method.name.startswith("test"):
            continue
        if "TestCase" in bases:
            yield f"__run_case__({node.name}, {method.name!r})"
        elif node.name.startswith("Test"):
            _refuse_fixtures(method, method=True)
            yield f"{node.name}().{method.name}()"


def _refuse_fixtures(node: ast.FunctionDef | ast.AsyncFunctionDef, *, method: bool) -> None:
    needed = len(node.args.args) - len(node.args.defaults) - method
    if needed > 0 and "parametrize" not in "".join(map(ast.unparse, node.decorator_list)):
        raise TestsUnusable(f"the test {node.name} needs arguments, but fixtures are not supported")


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
