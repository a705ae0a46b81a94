"""Splits texts at what is outside of all brackets. Works on tokens, in time linear in the text."""

from __future__ import annotations

import re

_TOKEN = re.compile(r"\\begin\{[a-zA-Z]+\*?\}|\\end\{[a-zA-Z]+\*?\}|\\[a-zA-Z]+|\\.|.", re.DOTALL)
_OPEN, _CLOSE = {"{", "(", "[", "\\{", "\\langle"}, {"}", ")", "]", "\\}", "\\rangle"}
MAX_BRACKETS = 30
"""Maximum number of brackets around a whole answer that are removed."""


def split_top(text: str, separators: set[str]) -> list[str]:
    """Split at separators (single tokens) that are outside of all brackets."""
    if not any(separator in text for separator in separators):
        return [text.strip()]
    parts, depth, start = [], 0, 0
    for token in _TOKEN.finditer(text):
        word = token.group()
        if word in _OPEN or word.startswith("\\begin"):
            depth += 1
        elif word in _CLOSE or word.startswith("\\end"):
            depth -= 1
        elif depth == 0 and word in separators:
            parts.append(text[start : token.start()].strip())
            start = token.end()
    return [*parts, text[start:].strip()]


def unwrap(text: str) -> str:
    """Remove TeX braces around the whole text, and parentheses around a whole single expression."""
    for _ in range(MAX_BRACKETS):
        inner = text[1:-1]
        single = text[:1] == "(" and text[-1:] == ")" and len(split_top(inner, {",", ";"})) == 1
        if not (is_whole(text) and (text[0] == "{" or single)):
            break
        text = inner.strip()
    return text


def top_tokens(text: str) -> list[str]:
    depth, found = 0, []
    for token in _TOKEN.finditer(text):
        word = token.group()
        depth += word in _OPEN or word.startswith("\\begin")
        depth -= word in _CLOSE or word.startswith("\\end")
        if depth == 0:
            found.append(word)
    return found


def is_whole(text: str) -> bool:
    """Whether a text starts with a bracket that is closed by its last character."""
    depth = 0
    for token in _TOKEN.finditer(text):
        word = token.group()
        depth += (word in _OPEN) - (word in _CLOSE)
        if depth == 0:
            return token.start() > 0 and token.end() == len(text)
    return False
