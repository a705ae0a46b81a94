"""Files and functions of the packages stay short enough to be read in one go."""

import ast

from tests.references.places import REPOSITORY

LONGEST_FILE = 320
LONGEST_FUNCTION = 60
MODULES = [path for name in ("ouro_rl", "rewards", "rollout_workers") for path in (REPOSITORY / name).rglob("*.py")]


def test_no_file_is_too_long():
    lengths = {str(path.relative_to(REPOSITORY)): len(path.read_text().splitlines()) for path in MODULES}
    assert len(lengths) > 100
    assert {name: length for name, length in lengths.items() if length > LONGEST_FILE} == {}


def test_no_function_is_too_long():
    lengths = {
        f"{path.relative_to(REPOSITORY)}:{node.name}": (node.end_lineno or 0) - node.lineno + 1
        for path in MODULES
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }
    assert len(lengths) > 500
    assert {name: length for name, length in lengths.items() if length > LONGEST_FUNCTION} == {}
