"""Changes the code of tests so that they report their results."""

from __future__ import annotations

import ast
from collections.abc import Iterable
from typing import Any


def watch_asserts(tree: ast.Module) -> str:
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


def record_asserts(tree: ast.Module) -> Recorder | None:
    """Replace every assert with a report of its result that does not stop the run, so that each is a test of its own.
    Returns None and changes nothing if the code handles errors itself. Asserts of a constant are dropped, since the
    program cannot fail them."""
    if any(isinstance(node, ast.Try | ast.TryStar | ast.With | ast.Raise) for node in ast.walk(tree)):
        return None
    checks = [node for node in ast.walk(tree) if isinstance(node, ast.Name) and node.id == "check"]
    recorder = Recorder(check_is_called_once=len(checks) == 1)
    recorder.visit(tree)
    ast.fix_missing_locations(tree)
    return recorder


class Recorder(ast.NodeTransformer):
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


def with_arguments_before(tree: ast.Module, names: Iterable[str]) -> ast.Module:
    """Let expected values be computed from arguments as they were before the program changed them. In
    `assert top(x) == max(x)`, a program that empties x could otherwise choose both sides. names: the program's names in
    the tests. What a test looks at itself (`assert g(x) == 3 and x == [1, 2]`) is not touched. Changes the tree."""
    origins = _from_program(tree, set(names))
    own = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.ClassDef)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Compare) and not any(isinstance(op, ast.Is | ast.IsNot) for op in node.ops):
            together = [node.left, *node.comparators]
        elif isinstance(node, ast.BinOp):
            together = [node.left, node.right]
        elif isinstance(node, ast.Call) and not _mentions(node.func, origins | own):
            together = list(node.args)
        else:
            continue
        if any(_mentions(part, origins) for part in together):
            wrapped = {id(part): _Before().visit(part) for part in together if not _mentions(part, origins)}
            _replace(node, wrapped)
    return ast.fix_missing_locations(tree)


def with_kinds(tree: ast.Module) -> ast.Module:
    """Let `type(x)` be the program's class where x is the program's object, and `x is y` be true where both stand for
    the same one. Changes the tree."""
    _Identity().visit(tree)
    bound = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and len(node.args) == 1 and not node.keywords and "type" not in bound:
            if isinstance(node.func, ast.Name) and node.func.id == "type":
                node.func.id = "__type__"
    return ast.fix_missing_locations(tree)


class _Identity(ast.NodeTransformer):
    def visit_Compare(self, node: ast.Compare) -> ast.expr:
        self.generic_visit(node)
        [operator, *further] = node.ops
        sides = [node.left, *node.comparators]
        if further or not isinstance(operator, ast.Is | ast.IsNot) or any(isinstance(p, ast.Constant) for p in sides):
            return node
        same = ast.Call(func=ast.Name(id="__is__", ctx=ast.Load()), args=sides, keywords=[])
        return same if isinstance(operator, ast.Is) else ast.UnaryOp(op=ast.Not(), operand=same)


def _from_program(tree: ast.Module, names: set[str]) -> set[str]:
    """Names that stand for the program's functions or for what these return."""
    origins = {*names, "candidate", "__candidate__"}
    size = 0
    while len(origins) > size:
        size = len(origins)
        for node in ast.walk(tree):
            value = getattr(node, "value", None) or getattr(node, "iter", None)
            targets = getattr(node, "targets", None) or [getattr(node, "target", None)]
            if isinstance(value, ast.AST) and _mentions(value, origins):
                parts = [part for target in targets if isinstance(target, ast.AST) for part in ast.walk(target)]
                origins |= {part.id for part in parts if isinstance(part, ast.Name) and isinstance(part.ctx, ast.Store)}
            elif isinstance(node, ast.FunctionDef) and not node.name.startswith("test") and _mentions(node, origins):
                origins.add(node.name)
    return origins


def _mentions(node: ast.AST, names: set[str]) -> bool:
    return any(isinstance(part, ast.Name) and part.id in names for part in ast.walk(node))


class _Before(ast.NodeTransformer):
    """Wraps what an expression reads (`x`, `case["x"]`, `case.x`), but not the functions that it calls."""

    def _wrapped(self, node: Any) -> Any:
        if not isinstance(node.ctx, ast.Load):
            return node
        return ast.Call(func=ast.Name(id="__before__", ctx=ast.Load()), args=[node], keywords=[])

    visit_Name = visit_Subscript = visit_Attribute = _wrapped

    def visit_Call(self, node: ast.Call) -> ast.Call:
        node.args = [self.visit(part) for part in node.args]
        for keyword in node.keywords:
            keyword.value = self.visit(keyword.value)
        if isinstance(node.func, ast.Attribute):  # `x.copy()`
            node.func.value = self.visit(node.func.value)
        return node


def _replace(node: ast.AST, wrapped: dict[int, ast.AST]) -> None:
    for name, value in ast.iter_fields(node):
        if isinstance(value, list):
            value[:] = [wrapped.get(id(part), part) for part in value]
        elif isinstance(value, ast.AST) and id(value) in wrapped:
            setattr(node, name, wrapped[id(value)])
