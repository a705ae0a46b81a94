"""Finds what tests do to the surroundings of the program that does not reach it, since it runs in another sandbox."""

from __future__ import annotations

import ast
from typing import Any

_STREAMS = ("sys.stdin", "sys.stdout", "sys.stderr", "sys.argv", "os.environ", "builtins.")
"""What tests set in place of the interpreter's own."""
_CALLS = frozenset(
    "open redirect_stdout redirect_stderr contextlib.redirect_stdout contextlib.redirect_stderr "
    "os.chdir os.putenv os.environ.update os.environ.setdefault".split()
)
_WARNINGS = frozenset({"catch_warnings", "simplefilter", "filterwarnings"})
_MODULES = frozenset({"tempfile", "subprocess", "socket"})
_METHODS = frozenset({"assertWarns", "assertWarnsRegex", "assertLogs", "assertNoLogs"})
_WRITES = frozenset({"write_text", "write_bytes"})
_PATCH = frozenset({"patch", "mock.patch", "unittest.mock.patch"})


def out_of_reach(tree: ast.Module, entry_point: Any) -> str:
    """What the tests use of this kind; empty if nothing. entry_point: the program's function, if it is named, which may
    share a name with one of Python's."""
    own = {entry_point}
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            own.add(node.name)
        elif isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Load):
            own.add(node.id)
    imported = {
        alias.asname or alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.module in ("unittest", "unittest.mock")
        for alias in node.names
    }
    for node in ast.walk(tree):
        name = ast.unparse(node) if isinstance(node, ast.Name | ast.Attribute | ast.Subscript) else ""
        if not name or name.partition(".")[0] in own:
            continue
        if not isinstance(node.ctx, ast.Load):  # type: ignore[attr-defined] # all three have one
            if name.startswith(_STREAMS):
                return name
        elif name.partition(".")[0] in _MODULES and "." in name:
            return name
        elif name.rpartition(".")[2] in _METHODS and "." in name:
            return name
        elif name.rpartition(".")[2] in _WRITES and name.startswith(("Path(", "pathlib.")):
            return name
        elif name in _PATCH and (name.partition(".")[0] in imported or name.startswith("unittest")):
            return name
    for node in ast.walk(tree):
        name = ast.unparse(node.func) if isinstance(node, ast.Call) else ""
        if name.partition(".")[0] in own:
            continue
        if name in _CALLS or (name.removeprefix("warnings.") in _WARNINGS and _sees_warnings(node)):
            return name
    return ""


def _sees_warnings(call: Any) -> bool:
    """Whether a call of the module `warnings` records warnings or makes them errors; to ignore them changes nothing."""
    words = {keyword.arg for keyword in call.keywords} | {
        part.value for part in call.args if isinstance(part, ast.Constant)
    }
    return not words.isdisjoint({"record", "error"})
