"""Extracts the program to be graded from a completion."""

from __future__ import annotations

import ast
import builtins
import re
import textwrap
import warnings
from dataclasses import dataclass

from rewards.code_grader.blocks import dedented, fenced_blocks, loose_pieces, normalized
from rewards.extraction import visible_text

_MOST_PARSED = 2_000_000
"""Characters that are parsed in search of the program: tens of times the length of a completion."""
_MOST_CUTS = 20
_CODE_LINE = re.compile(r"^(?:def |class |import |from |async def |@)", re.MULTILINE)
_OUTPUT = re.compile(r"\b(?:print|write|writelines)\b")
_INPUT = re.compile(r"\b(?:input|stdin|open|fileinput|read)\b")


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """What the tests need from a program."""

    names: frozenset[str] = frozenset()
    """Functions, classes and constants that it must define; empty for a script."""
    reads: bool = False
    """Whether a script is given input."""
    prompt: str = ""
    """HumanEval's: code that ends with the function's signature."""
    entry_point: str | None = None


@dataclass(frozen=True, kw_only=True)
class Program:
    """A completion's program."""

    code: str
    """As in the completion."""
    source: str
    """As it is run: with the prompt's code, and with what it needs from other blocks."""


def find_program(completion: str, wanted: Wanted, *, thinking: bool = False) -> Program | None:
    """The last piece of a completion that defines what the tests ask for; else the longest one that is Python; else the
    last block, or all of the text. Pieces are the fenced blocks after the thought, those that are marked as another
    language after all others; where these do not suffice, what lies between any two fences, and the text itself. None
    if there is only blank text.
    See `extraction.visible_text`."""
    text = normalized(visible_text(completion, thinking=thinking))
    fenced = fenced_blocks(text)
    blocks = [block.content for block in fenced]
    python, others = ([block.content for block in fenced if block.other is other] for other in (False, True))
    search = _Search(wanted)
    for pieces in (
        python,
        others,
        [piece for piece in loose_pieces(text) if piece.strip()],
        [text, *_without_prose(text)],
    ):
        search.add(pieces)
        if found := search.fitting():
            return found
    return search.longest() or _as_it_is(blocks[-1] if blocks else text, wanted)


def parse(source: str) -> ast.Module | None:
    """The syntax tree, or None if the source is not valid Python."""
    tree = _parse(source)
    return tree if isinstance(tree, ast.Module) else None


def defined_names(tree: ast.Module) -> set[str]:
    """Names that a module's top-level statements define, import or assign."""
    return set().union(*map(_names_of, tree.body)) if tree.body else set()


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


class _Search:
    """The pieces of a completion that are Python, in order."""

    def __init__(self, wanted: Wanted) -> None:
        self._wanted = wanted
        self._left = _MOST_PARSED
        self._found: list[tuple[Program, ast.Module]] = []
        self._new = 0
        head = parse(wanted.prompt) if wanted.entry_point else None
        self._body_expected = head is not None and wanted.entry_point in defined_names(head)

    def add(self, pieces: list[str]) -> None:
        self._new = len(self._found)
        for piece in pieces:
            self._left -= len(piece)
            if self._left > 0 and (read := self._read(piece)):
                self._found.append(read)

    def fitting(self) -> Program | None:
        """Of the pieces added last, the one that defines the most of what is wanted; of equals the last. None if no
        piece defines any of it."""
        most, best = 0, None
        for number, (program, tree) in enumerate(self._found[self._new :], self._new):
            fit = self._fit(program, tree)
            if fit and fit >= most:
                most, best = fit, number
        return None if best is None else self._with_helpers(best)

    def longest(self) -> Program | None:
        programs = [program for program, _ in self._found]
        return max(reversed(programs), key=lambda program: len(program.code), default=None)

    def _fit(self, program: Program, tree: ast.Module) -> int:
        if self._wanted.names:
            return len(self._wanted.names & (defined_names(tree) | _methods_of_solution(tree)))
        return int(bool(_OUTPUT.search(program.code) and (not self._wanted.reads or _INPUT.search(program.code))))

    def _read(self, piece: str) -> tuple[Program, ast.Module] | None:
        """The piece as a program, if it is Python: as it is, without common indentation, or as the body of the
        prompt's function."""
        wanted = self._wanted
        if self._body_expected and _first_line(piece)[:1] in (" ", "\t"):
            source = program_of(piece, wanted.prompt, wanted.entry_point)
            if tree := parse(source):
                return Program(code=piece, source=source), tree
        for code in dict.fromkeys((piece, dedented(piece))):
            if (tree := parse(code)) and tree.body and not any(isinstance(node, ast.Return) for node in tree.body):
                return Program(code=code, source=program_of(code, wanted.prompt, wanted.entry_point)), tree
        return None

    def _with_helpers(self, number: int) -> Program:
        """The program, after those statements of earlier blocks that define names which it uses and does not define."""
        program, tree = self._found[number]
        missing = _missing_names(tree)
        if not missing or program.source != program.code:
            return program
        taken: list[str] = []
        for _, earlier in reversed(self._found[:number]):
            statements: list[ast.stmt] = [node for node in earlier.body if isinstance(node, _DEFINITIONS)]
            if missing & set().union(*map(_names_of, statements), set()):
                kept = [node for node in statements if not _names_of(node) & defined_names(tree)]
                missing |= _missing_names(ast.Module(body=kept, type_ignores=[]))
                taken[:0] = map(ast.unparse, kept)
        return Program(code=program.code, source="\n".join([*taken, program.code])) if taken else program


_DEFINITIONS = (
    ast.FunctionDef,
    ast.AsyncFunctionDef,
    ast.ClassDef,
    ast.Import,
    ast.ImportFrom,
    ast.Assign,
    ast.AnnAssign,
)


def _as_it_is(code: str, wanted: Wanted) -> Program | None:
    """A program that does not parse, as far as can be seen here."""
    if not code.strip():
        return None
    body = textwrap.indent(dedented(code), "    ")
    source = program_of(body, wanted.prompt, wanted.entry_point)
    if source != body and parse(source):
        return Program(code=code, source=source)
    return Program(code=code, source=program_of(code, wanted.prompt, wanted.entry_point))


def _without_prose(text: str) -> list[str]:
    """Pieces of a text without fences that end where it stops being Python: from its start, and from its first line
    that looks like code."""
    first = _CODE_LINE.search(text)
    starts = [0, *([first.start()] if first and first.start() else [])]
    return [piece for start in starts if (piece := _cut(text[start : start + _MOST_PARSED // 50]))]


def _cut(text: str) -> str:
    """The longest beginning of a text that parses, found by cutting it before the line of the error."""
    lines = text.split("\n")
    offset = 0
    if lines and _first_line(text)[:1] in (" ", "\t"):  # the body of a function
        lines, offset = ["def _():", *lines], 1
    for _ in range(_MOST_CUTS):
        problem = _parse("\n".join(lines))
        if isinstance(problem, ast.Module):
            return "\n".join(lines[offset:])
        line = problem or len(lines)
        lines = lines[: max(0, min(line, len(lines)) - 1)]
        if len(lines) <= offset:
            return ""
    return ""


def _first_line(text: str) -> str:
    """The first line with code."""
    return next((line for line in text.split("\n") if line.strip() and not line.lstrip().startswith("#")), "")


def _parse(source: str) -> ast.Module | int | None:
    """The syntax tree; or the line of the error, if there is one."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about escapes and comparisons in untrusted code
        try:
            return ast.parse(source)
        except SyntaxError as error:
            return error.lineno
        except (ValueError, RecursionError, MemoryError):
            return None


def _names_of(node: ast.stmt) -> set[str]:
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        return {node.name}
    names: set[str] = set()
    for part in ast.walk(node):
        if isinstance(part, ast.Name) and isinstance(part.ctx, ast.Store):
            names.add(part.id)
        elif isinstance(part, ast.alias):
            names.add((part.asname or part.name).split(".")[0])
        elif isinstance(part, ast.FunctionDef | ast.ClassDef):
            names.add(part.name)
    return names


def _methods_of_solution(tree: ast.Module) -> set[str]:
    """LeetCode's functions are methods of a class `Solution`."""
    bodies = [node.body for node in tree.body if isinstance(node, ast.ClassDef) and node.name == "Solution"]
    return {part.name for body in bodies for part in body if isinstance(part, ast.FunctionDef | ast.AsyncFunctionDef)}


def _missing_names(tree: ast.Module) -> set[str]:
    """Names that a module uses and neither defines nor finds in Python."""
    used: set[str] = set()
    known = {*dir(builtins), "__file__", "__name__"}
    for node in ast.walk(tree):
        if isinstance(node, ast.Name):
            (used if isinstance(node.ctx, ast.Load) else known).add(node.id)
        elif isinstance(node, ast.arg):
            known.add(node.arg)
        elif isinstance(node, ast.alias):
            known.add((node.asname or node.name).split(".")[0])
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            known.add(node.name)
        elif isinstance(node, ast.ExceptHandler) and node.name:
            known.add(node.name)
    return used - known
