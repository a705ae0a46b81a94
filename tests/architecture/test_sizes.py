"""Files and functions stay short enough to be read in one go, and the top folder has few entries."""

import ast
from pathlib import Path

from tests.references.places import REPOSITORY

LONGEST_FILE = 320
LONGEST_FUNCTION = 60
LONGEST_LINE = 120
MOST_ENTRIES = 12
"""Folders and files directly in `ouro_rl/`, beside its entry points."""
ENTRY_POINTS = {"__init__.py", "__main__.py", "launch.py"}
MODULES = [path for name in ("ouro_rl", "rewards", "rollout_workers") for path in (REPOSITORY / name).rglob("*.py")]


TESTS = list((REPOSITORY / "tests").rglob("*.py"))


def entries(package: Path) -> set[str]:
    """Folders and files of a package, without its entry points and what Python leaves behind."""
    return {path.name for path in package.iterdir()} - ENTRY_POINTS - {"__pycache__"}


def test_entries_are_counted(tmp_path):
    for name in ("__init__.py", "launch.py", "a.py", "data.txt"):
        (tmp_path / name).touch()
    (tmp_path / "folder").mkdir()
    (tmp_path / "__pycache__").mkdir()
    assert entries(tmp_path) == {"a.py", "data.txt", "folder"}


def test_the_top_folder_has_few_entries():
    assert len(entries(REPOSITORY / "ouro_rl")) <= MOST_ENTRIES


def test_no_file_is_too_long():
    lengths = {str(path.relative_to(REPOSITORY)): len(path.read_text().splitlines()) for path in [*MODULES, *TESTS]}
    assert len(lengths) > 250
    assert {name: length for name, length in lengths.items() if length > LONGEST_FILE} == {}


def test_no_line_of_c_is_too_long():
    """As of Python, where ruff looks."""
    files = [path for end in ("c", "h") for path in (REPOSITORY / "ouro_rl" / "kernels").rglob(f"*.{end}")]
    lines = [(path.name, line) for path in files for line in path.read_text().splitlines()]
    assert len(lines) > 900
    assert [one for one in lines if len(one[1]) > LONGEST_LINE] == []


def test_no_function_is_too_long():
    lengths = {
        f"{path.relative_to(REPOSITORY)}:{node.lineno}: {node.name}": (node.end_lineno or 0) - node.lineno + 1
        for path in MODULES
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }
    assert len(lengths) > 500
    assert {name: length for name, length in lengths.items() if length > LONGEST_FUNCTION} == {}
