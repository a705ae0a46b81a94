"""Decides which names in a data set's tests are the program's functions, and which are the tests' own helpers."""

from __future__ import annotations

import ast
import builtins
import importlib
import re
import sys
import typing
from collections.abc import Mapping
from typing import Any, TypeGuard

from rewards.code_grader.program import defined_names, parse

_LIBRARY = ("math", "collections", "itertools", "functools", "operator", "re", "string", "json", "copy", "typing")
"""Modules searched for names that a test uses but neither imports nor expects the program to define."""
_PROGRAMS = frozenset({"__hello__", "__phello__", "antigravity", "idlelib", "test", "this", "turtledemo"})
"""Modules of the library that do something when they are imported, or have parts that do."""


class TestsUnusable(ValueError):
    """The data set's tests cannot be used. The message says why."""

    __test__ = False  # pytest would collect a class of this name


def called_names(trees: list[ast.Module], setup: list[str], row: Mapping[str, Any]) -> dict[str, str]:
    """The program's functions as name -> name: `entry_point`; or the names that the prompt's code defines; or the names
    that the tests use without a definition. Of the last, names that only handle values of another undefined name are
    the tests' own helpers: the program must not provide them. Adds imports to `setup` for modules and names of the
    standard library that a test uses without importing them. Raises TestsUnusable."""
    used: set[str] = set()
    known = set(dir(builtins)).union(*map(_names_of_setup, setup))
    modules: set[str] = set()
    for node in (node for tree in trees for node in ast.walk(tree)):
        if isinstance(node, ast.Name):
            (used if isinstance(node.ctx, ast.Load) else known).add(node.id)
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            modules.add(node.value.id)
        elif isinstance(node, ast.ImportFrom):
            known |= _starred(node)
        elif isinstance(node, ast.arg):
            known.add(node.arg)
        elif isinstance(node, ast.alias):
            known.add((node.asname or node.name).split(".")[0])
        elif isinstance(node, ast.FunctionDef | ast.ClassDef):
            known.add(node.name)
        elif isinstance(node, ast.ExceptHandler) and node.name:
            known.add(node.name)
    unknown = used - known
    entry_point, prompt = row.get("entry_point"), row.get("prompt")
    promised = _tree_or_none(prompt)
    names = defined_names(promised) & unknown if promised else set()
    methods: dict[str, str] = {}
    if isinstance(entry_point, str):
        names = {entry_point}
        if "." in entry_point:  # `Solution().f`: tests may call f, or make a Solution themselves
            names |= {entry_point.partition(".")[0].removesuffix("()")} & unknown
            methods = {name: entry_point for name in {entry_point.rpartition(".")[2]} & unknown}
            unknown -= set(methods)
    imported = sorted((unknown - names) & modules & sys.stdlib_module_names)
    setup += [f"import {name}" for name in imported]
    unknown -= set(imported)
    while own := unknown - names if names else set().union(*(_handlers(tree, unknown) for tree in trees)):
        for name in sorted(own):
            module = _library_module(name)
            if module is None:
                raise TestsUnusable(
                    f"the tests use {name} besides the program's function, but it is not defined: import or define it"
                )
            setup.append(f"from {module} import {name}")
        unknown -= own
    return {name: name for name in sorted(names or unknown or _shadowed_builtin(trees))} | methods


def class_names(trees: list[ast.Module], names: Mapping[str, str]) -> frozenset[str]:
    """The program's names that the tests use as classes: named like one, and its objects have attributes, are given
    items, are asked for their class, or are compared with each other."""
    capital = {name for name in names if name[:1].isupper()}
    used: set[str] = set()
    for tree in trees:
        made: dict[str, str] = {}
        for node in ast.walk(tree):
            if isinstance(node, ast.Assign) and (name := _made(node.value, capital, {})):
                made |= {target.id: name for target in node.targets if isinstance(target, ast.Name)}
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute) or (isinstance(node, ast.Subscript) and not _is_read(node)):
                used.add(_made(node.value, capital, made))
            elif _asks_for_class(node):
                used |= (
                    {part.id for part in ast.walk(node.args[-1]) if isinstance(part, ast.Name)} if node.args else set()
                )
            elif isinstance(node, ast.Compare):
                sides = [node.left, *node.comparators]
                made_in = [{_made(part, capital, {}) for part in ast.walk(side)} - {""} for side in sides]
                used |= set.intersection(*made_in)
    return frozenset(used & capital)


def _is_read(node: ast.Subscript) -> bool:
    return isinstance(node.ctx, ast.Load)


def _asks_for_class(node: ast.AST) -> TypeGuard[ast.Call]:
    """Whether the last argument is a class, or a tuple of classes."""
    return isinstance(node, ast.Call) and getattr(node.func, "id", "") in ("isinstance", "issubclass")


def _made(node: ast.AST, classes: set[str], made: Mapping[str, str]) -> str:
    """The class of an object that an expression makes, perhaps by an operator, or that a variable holds; empty if
    unknown."""
    if isinstance(node, ast.BinOp):
        return _made(node.left, classes, made) or _made(node.right, classes, made)
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in classes:
        return node.func.id
    return made.get(node.id, "") if isinstance(node, ast.Name) else ""


def _names_of_setup(source: str) -> set[str]:
    tree = parse(source)
    assert tree is not None, "sources that are no Python were refused when they were read"
    return defined_names(tree).union(*map(_starred, ast.walk(tree)))


def _starred(node: ast.AST) -> set[str]:
    """What `from module import *` defines, of a module of the library; empty for any other node."""
    if not isinstance(node, ast.ImportFrom) or node.names[0].name != "*":
        return set()
    module = node.module or ""
    if module.partition(".")[0] not in sys.stdlib_module_names - _PROGRAMS:
        return set()
    try:
        found = vars(importlib.import_module(module))
    except ImportError:  # of another system, say: the judge fails on it, too, unless the tests catch that
        return set()
    return set(found.get("__all__") or (name for name in found if not name.startswith("_")))


def _tree_or_none(prompt: Any) -> ast.Module | None:
    return parse(prompt) if isinstance(prompt, str) else None


def _handlers(tree: ast.Module, unknown: set[str]) -> set[str]:
    """Names that are called with a value from another unknown name, or compared to one, directly or through variables:
    `isclose` in `isclose(triple(2.0), 6.0)`. If the program provided them, it could grade itself."""
    sources: dict[str, set[str]] = {name: {name} for name in unknown}

    def origins(*parts: ast.AST) -> set[str]:
        names = [node.id for part in parts for node in ast.walk(part) if isinstance(node, ast.Name)]
        return set().union(*(sources.get(name, set()) for name in names))

    nodes = list(ast.walk(tree))
    for _ in range(3):  # several passes, for variables set from other variables
        for node in nodes:
            value = getattr(node, "value", None) or getattr(node, "iter", None)
            targets = getattr(node, "targets", None) or [getattr(node, "target", None)]
            if isinstance(value, ast.AST):
                stored = [part for target in targets if isinstance(target, ast.AST) for part in ast.walk(target)]
                for name in {part.id for part in stored if isinstance(part, ast.Name)} - unknown:
                    sources[name] = sources.get(name, set()) | origins(value)
    valued = _compared_with_data(tree, nodes, origins)
    handlers: set[str] = set()
    called = {id(node.func) for node in nodes if isinstance(node, ast.Call)}
    for node in nodes:
        if isinstance(node, ast.Call):
            function, values = origins(node.func), origins(*node.args, *node.keywords)
            if values - function:
                handlers |= {name for name in function if id(node) not in valued or _library_module(name)}
            if _asks_for_class(node):  # its last argument may be the program's class, or the library's
                handlers |= {name for name in values if _is_library_class(name)}
            elif not function and len(values) > 1:  # `map(isclose, [triple(2.0)], [6.0])`
                parts = [part for value in (*node.args, *node.keywords) for part in ast.walk(value)]
                passed = {part.id for part in parts if isinstance(part, ast.Name) and id(part) not in called} & unknown
                handlers |= passed and ({name for name in values if _library_module(name)} or passed)
        elif isinstance(node, ast.Compare):
            left, right = origins(node.left), origins(*node.comparators)
            if any(name[:1].isupper() for name in left | right):
                continue  # a class or a constant of the program, which a test may compare with
            if left and right and not left & right:
                handlers |= {name for name in left | right if _library_module(name)} or left | right
    return handlers


def _compared_with_data(tree: ast.Module, nodes: list[ast.AST], origins: Any) -> set[int]:
    """Calls that do not grade though they take values of another unknown name: their results are compared with the
    tests' data (`get(make(3)) == 3`) or with objects that the tests make (`middle(P(0), P(4)) == P(2)`), or are not
    looked at (`push(stack, 3)`)."""
    operands: list[ast.AST] = [node.value for node in nodes if isinstance(node, ast.Expr)]
    for node in nodes:
        if isinstance(node, ast.Compare) and all(isinstance(op, ast.Eq | ast.Is) for op in node.ops):
            sides = [node.left, *node.comparators]
            data = [side for side in sides if all(name[:1].isupper() for name in origins(side))]
            # "equal to zero" and "is true" are what a comparing function would say
            if data and not any(isinstance(side, ast.Constant) and side.value in (0, True, None) for side in data):
                operands += [side for side in sides if origins(side)]
    variables = {part.id for side in operands for part in ast.walk(side) if isinstance(part, ast.Name)}
    for node in nodes:
        if isinstance(node, ast.Assign) and {getattr(target, "id", "") for target in node.targets} & variables:
            operands.append(node.value)
    return {id(part) for side in operands for part in ast.walk(side) if isinstance(part, ast.Call)}


def _library_module(name: str) -> str | None:
    for module in _LIBRARY:
        found = getattr(importlib.import_module(module), name, None)
        if found is not None and not isinstance(found, re.RegexFlag | typing.TypeVar):  # `T` is a class of the program
            return module
    return None


def _is_library_class(name: str) -> bool:
    """Whether a name of the library is a class, or stands for one as `typing.List` does; `re.A` is none."""
    module = _library_module(name)
    found = getattr(importlib.import_module(module), name) if module else None
    return isinstance(found, type) or hasattr(found, "__origin__")


def _shadowed_builtin(trees: list[ast.Module]) -> set[str]:
    """The program's function if it has the name of a built-in function, as in `assert sum(10, 15) == 6`: the one that
    all tests call. Raises TestsUnusable if there is not exactly one: in `assert abs(sum(10, 15) - 6) < 1e-9`, the
    program's `abs` would grade its `sum`."""
    calls = [[node.func for node in ast.walk(tree) if isinstance(node, ast.Call)] for tree in trees]
    common = set.intersection(
        *({function.id for function in called if isinstance(function, ast.Name)} for called in calls)
    )
    functions = {name for name in common if not isinstance(getattr(builtins, name, None), type)} or common
    if len(functions) != 1:
        raise TestsUnusable("the tests do not show which function is the program's: name it in `entry_point`")
    return functions
