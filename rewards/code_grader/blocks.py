"""Finds the pieces of a completion that may be its program: fenced blocks, however they are written, and plain text."""

from __future__ import annotations

import re
import textwrap
from dataclasses import dataclass

_FENCE = re.compile(r"^(?P<lead>[^\n]*?)(?P<run>`{3,}|~{3,})(?P<rest>[^\n]*)$", re.MULTILINE)
_LEAD = re.compile(r"[ \t]*(?:>[ \t]?|[-*+][ \t]+|\d+[.)][ \t]+|<[\w/]+>[ \t]*)*")
"""What may stand before a fence on its line: indentation, quotes, list items, tags."""
_LANGUAGE = re.compile(r"[ \t]*[\w{]")
_OTHER_LANGUAGES = set(
    "text txt plaintext plain output console terminal shell bash sh zsh powershell json yaml toml xml html css csv "
    "diff patch md markdown latex tex math mermaid pseudocode pseudo algorithm c c++ cpp csharp java javascript js ts "
    "typescript go rust ruby php kotlin swift scala haskell lua perl r julia sql make dockerfile".split()
)
_MOST_FENCES = 400
"""Only the last fences of a text count: a program is stated once, not hundreds of times."""
_INVISIBLE = dict.fromkeys(map(ord, "\ufeff\u200b\u2060"))


@dataclass(frozen=True, kw_only=True)
class _Fence:
    start: int
    """Start of its line."""
    body: int
    """Start of the line after it."""
    lead: str
    """The text before it on its line."""
    run: str
    rest: str
    """The text after it on its line."""

    @property
    def alone(self) -> bool:
        """Whether nothing but indentation and the like stands before it."""
        return _LEAD.fullmatch(self.lead) is not None

    def opens(self) -> bool:
        return "`" not in self.rest and self.alone

    def closes(self, other: _Fence) -> bool:
        """Whether it closes a block that `other` opened. Punctuation or a tag may follow, but no language."""
        return self.run[0] == other.run[0] and len(self.run) >= len(other.run) and not _LANGUAGE.match(self.rest)


def normalized(text: str) -> str:
    """The text with one kind of line end, and without invisible characters that no program contains on purpose."""
    return text.replace("\r\n", "\n").replace("\r", "\n").translate(_INVISIBLE)


@dataclass(frozen=True, kw_only=True)
class Block:
    """A fenced block that is not blank."""

    content: str
    other: bool
    """Whether its fence names something else than Python."""


def fenced_blocks(text: str) -> list[Block]:
    """The text's fenced blocks, in order: a block ends at its closing fence, or at the end of the text. A fence within
    a docstring belongs to the block's program."""
    fences = _fences(text)
    blocks: list[Block] = []
    at = 0
    while at < len(fences):
        opening = fences[at]
        at += 1
        if not opening.opens():
            continue
        closing = next(
            (
                i
                for i in range(at, len(fences))
                if fences[i].closes(opening) and not _within_text(text, opening, fences[i])
            ),
            None,
        )
        if closing is None:  # the last block is not closed, or a docstring is not
            closing = next((i for i in range(at, len(fences)) if fences[i].closes(opening)), len(fences))
        content = _content(text, opening, fences[closing] if closing < len(fences) else None)
        if content.strip():
            blocks.append(Block(content=content, other=opening.rest.strip().lower() in _OTHER_LANGUAGES))
        at = closing + 1
    return blocks


def loose_pieces(text: str) -> list[str]:
    """What lies between neighboring fences, before the first and after the last: where fences are missing or stray, one
    of these pieces is the program."""
    fences = _fences(text)
    if not fences:
        return []
    pieces = [_content(text, None, fences[0])]
    for fence, following in zip(fences, [*fences[1:], None], strict=True):
        pieces.append(_content(text, fence, following))
    return pieces


def dedented(block: str) -> str:
    """The block without the indentation that all its lines share."""
    return textwrap.dedent(block.expandtabs(8) if "\t" in block and block.startswith(" ") else block)


def _fences(text: str) -> list[_Fence]:
    found = [
        _Fence(start=m.start(), body=m.end() + 1, lead=m["lead"], run=m["run"], rest=m["rest"])
        for m in _FENCE.finditer(text)
    ]
    return found[-_MOST_FENCES:]


def _within_text(text: str, opening: _Fence, closing: _Fence) -> bool:
    """Whether the closing fence lies in a triple-quoted string of the program, as in a docstring with an example."""
    content = text[opening.body : closing.start]
    return any(content.count(quotes) % 2 for quotes in ('"""', "'''"))


def _content(text: str, opening: _Fence | None, closing: _Fence | None) -> str:
    start = opening.body if opening else 0
    content = text[start : closing.start if closing else len(text)]
    if closing and not closing.alone:  # glued to the last line of the program
        content += closing.lead + "\n"
    if opening is None:
        return content
    if ">" in opening.lead:
        return re.sub(r"^[ \t]*>[ \t]?", "", content, flags=re.MULTILINE)
    indent = len(opening.lead) - len(opening.lead.lstrip())
    return re.sub(rf"^[ \t]{{1,{indent}}}", "", content, flags=re.MULTILINE) if indent else content
