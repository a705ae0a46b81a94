"""Extracts the program to be graded from a completion."""

from __future__ import annotations

import ast
import re
import warnings

from rewards.extraction import visible_text

_FENCE = re.compile(r"^[ \t]*(```+|~~~+)([^\n`]*)\n(.*?)(?:^[ \t]*\1[ \t]*$|\Z)", re.DOTALL | re.MULTILINE)


def extract_code(completion: str, *, thinking: bool = False) -> str | None:
    """The last fenced code block after the thought, or all text after it if there is no block; None if that is blank.
    An unclosed last block counts: the tests decide whether it is complete. See `extraction.visible_text`."""
    text = visible_text(completion, thinking=thinking)
    blocks = [match.group(3) for match in _FENCE.finditer(text)]
    code = blocks[-1] if blocks else text
    return code if code.strip() else None


def parse(source: str) -> ast.Module | None:
    """The syntax tree, or None if the source is not valid Python."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about escapes and comparisons in untrusted code
        try:
            return ast.parse(source)
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            return None


def defined_names(tree: ast.Module) -> set[str]:
    """Names that a module's top-level statements define, import or assign."""
    names: set[str] = set()
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names.add(node.name)
            continue
        for part in ast.walk(node):
            if isinstance(part, ast.Name) and isinstance(part.ctx, ast.Store):
                names.add(part.id)
            elif isinstance(part, ast.alias):
                names.add((part.asname or part.name).split(".")[0])
    return names


def program_of(code: str, prompt: str, entry_point: str | None) -> str:
    """The program to run. If the prompt is code that ends with the function's signature (HumanEval), it is prepended:
    the code is then either the function's body, or a whole function that may need the prompt's imports and helpers."""
    head = parse(prompt) if entry_point else None
    if head is None or entry_point not in defined_names(head):
        return code
    whole = parse(code)
    if whole is not None and entry_point in defined_names(whole):
        if any(isinstance(node, ast.ImportFrom) and node.module == "__future__" for node in whole.body):
            return code  # a __future__ import must come first
        return f"{prompt}\n{code}"
    return f"{prompt}{code}"
