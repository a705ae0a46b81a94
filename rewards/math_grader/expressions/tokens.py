"""The tokens of a normalized answer, and a reader over them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

from rewards.math_grader.expressions.nodes import RELATIONS

MAX_NESTING = 30
"""Maximum nesting depth of brackets, exponents and arguments."""
SET_OPERATORS = {"\\cup", "\\cap", "\\setminus", "\\oplus", "\\otimes", "\\wedge", "\\vee", "\\land", "\\lor", "\\circ"}
"""Operators that are compared, not computed."""
ENDS = {")", "]", "}", "\\}", "\\rfloor", "\\rceil", ",", ";", "&", "\\\\", "\\end"}
_TOKEN = re.compile(
    r"\d{1,3}(?:,\d{3})+(?![\d])(?:\.\d+)?|\d+(?:\.\d+)?|\.\d+|\.\.\.|\\[a-zA-Z]+|\\.|\S|\s+", re.DOTALL
)
NUMBER = re.compile(r"[\d,]*\.?\d+")
_NO_FACTORS = {"+", "-", "\\pm", "\\mp", "^", "_", "!", "'", "%", "\\choose", "\\over", "\\cross", "]"}


class Unreadable(Exception):
    """The text is no expression of the grammar."""


class Tokens:
    """A reader over the tokens of one text."""

    def __init__(self, text: str) -> None:
        raw = [match.group() for match in _TOKEN.finditer(text)]
        self.tokens = [token for token in raw if not token.isspace()]
        self.place = self.depth = self.bars = 0

    def peek(self, ahead: int = 0) -> str:
        place = self.place + ahead
        return self.tokens[place] if place < len(self.tokens) else ""

    def take(self, wanted: str = "") -> str:
        token = self.peek()
        if not token or (wanted and token != wanted):
            raise Unreadable
        self.place += 1
        return token

    @contextmanager
    def deeper(self) -> Iterator[None]:
        """One level of nesting. Raises Unreadable if there are too many."""
        self.depth += 1
        if self.depth > MAX_NESTING:
            raise Unreadable
        yield
        self.depth -= 1

    def starts(self) -> bool:
        """Whether the next token begins a factor."""
        token = self.peek()
        if not token or token in ENDS or token in RELATIONS or token in SET_OPERATORS:
            return False
        if token == "|":
            return not self.bars
        return token not in _NO_FACTORS

    def raw(self) -> str:
        """The text of a braced argument, without its case if it may be a word: CO is not Co."""
        self.take("{")
        depth, start = 1, self.place
        while depth:
            token = self.take()
            depth += (token == "{") - (token == "}")
        text = "".join(self.tokens[start : self.place - 1])
        return text if len(text) == 2 and text[0].isupper() else text.lower()
