"""One habit for errors: their text does not end with a full stop."""

from __future__ import annotations

import ast
from collections.abc import Iterator

from tests.references.places import REPOSITORY

ERRORS = {"UserError", "RunError"}


def last_words(source: str) -> Iterator[tuple[int, str]]:
    """(line, text) of the end of every error that is made with a text written out, where that end is written out."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ERRORS and node.args:
            text = node.args[0]
            end = text.values[-1] if isinstance(text, ast.JoinedStr) and text.values else text
            if isinstance(end, ast.Constant) and isinstance(end.value, str):
                yield node.lineno, end.value


def test_the_search_finds_a_full_stop() -> None:
    source = 'raise UserError("a.")\nraise RunError(f"{b}: c")\nraise UserError(\n    f"{d} e "\n    "f."\n)'
    assert list(last_words(source)) == [(1, "a."), (2, ": c"), (3, " e f.")]


def test_no_error_ends_with_a_full_stop() -> None:
    files = [file for name in ("ouro_rl", "rewards", "rollout_workers") for file in (REPOSITORY / name).rglob("*.py")]
    ends = [(file, *end) for file in files for end in last_words(file.read_text(encoding="utf-8"))]
    assert len(ends) > 100
    assert [f"{file.relative_to(REPOSITORY)}:{line}: {text}" for file, line, text in ends if text.endswith(".")] == []
