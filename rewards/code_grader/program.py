"""From a completion to the program that is judged."""

from __future__ import annotations

import ast
import re
import warnings

from rewards.extraction import visible_text

_FENCE = re.compile(r"^[ \t]*(```+|~~~+)([^\n`]*)\n(.*?)(?:^[ \t]*\1[ \t]*$|\Z)", re.DOTALL | re.MULTILINE)


def extract_code(completion: str, *, thinking: bool = False) -> str | None:
    """The last fenced block of what follows the thought, or else the whole of it; None when there is nothing. A last block
    that was never closed counts: whether it is whole is for the tests to say. See `extraction.visible_text`."""
    text = visible_text(completion, thinking=thinking)
    blocks = [match.group(3) for match in _FENCE.finditer(text)]
    code = blocks[-1] if blocks else text
    return code if code.strip() else None


def parse(source: str) -> ast.Module | None:
    """The syntax tree, or None for a text that is no program."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about escapes and comparisons in other people's code
        try:
            return ast.parse(source)
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            return None


def defined_names(tree: ast.Module) -> set[str]:
    """Names that a module's own statements define, import or assign."""
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
    """The program to run. Where the prompt is itself code that ends in the function's head (HumanEval), the code is either
    the function's body, and goes below it, or a whole function, and has the prompt's imports and helpers above it."""
    head = parse(prompt) if entry_point else None
    if head is None or entry_point not in defined_names(head):
        return code
    whole = parse(code)
    if whole is not None and entry_point in defined_names(whole):
        if any(isinstance(node, ast.ImportFrom) and node.module == "__future__" for node in whole.body):
            return code  # it must come first
        return f"{prompt}\n{code}"
    return f"{prompt}{code}"
