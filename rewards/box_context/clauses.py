"""Splits the text after an answer into sentences and their clauses."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from rewards.box_context.words import (
    CONNECTIVES,
    CORRECTIONS,
    DOUBTS,
    INTERJECTIONS,
    WITHDRAWALS,
    Token,
    is_filler,
    is_value,
    spelled_out,
    tokens,
)

OWN = "@"
"""Stands for the answer's own value among words."""
_LONGEST = 240
"""Characters of an answer that is looked for in the text."""
_BOXES = frozenset(("\\boxed", "\\fbox"))
_SEPARATORS = frozenset(",;:\u2014\u2013")
_HMM = re.compile("h+m+")
_LINKS = CONNECTIVES | {"if", "why"}


@dataclass(frozen=True, slots=True)
class Clause:
    """A clause: the connectives before it, and its words, with `@` for the answer's own value and `#` for others."""

    links: tuple[str, ...]
    words: tuple[str, ...]
    start: int


@dataclass(frozen=True, slots=True)
class Sentence:
    """A sentence as clauses. ends: its end mark, empty for the end of a paragraph."""

    clauses: tuple[Clause, ...]
    ends: str


def sentences_of(text: str, answer: str) -> Iterator[Sentence]:
    """The sentences of a text. The first one goes on after the answer."""
    clauses: list[Clause] = []
    words: list[str] = []
    links: list[str] = []
    start = 0
    found = _with_own(tokens(text), tokens(spelled_out(answer)) if len(answer) <= _LONGEST else [])
    found.append(Token("stop", ".", len(text)))
    for token, following in itertools.zip_longest(found, found[1:]):
        ends = token.kind == "stop"
        opens = token.text in _SEPARATORS or _opens_clause(token, following, words)
        if not (ends or opens):
            start = start if words else token.start
            words.append(_word(token))
            continue
        if words:
            clauses.append(Clause(tuple(links), tuple(words), start))
            links, words = [], []
        if token.text.isalpha():
            links.append(token.text)
        start = token.start
        if ends:
            yield Sentence(tuple(clauses), token.text.strip())
            clauses, links = [], []


def _opens_clause(token: Token, following: Token | None, words: Sequence[str]) -> bool:
    """Whether a token is a connective before a clause: "that" is none where it is a pronoun ("scratch that 18"), and
    "instead" none at the end ("take 18 instead")."""
    if token.text in _LINKS:
        return token.text != "instead" or following is None or following.kind != "stop"
    if token.text != "that" or not words or following is None:
        return False
    return following.kind in ("word", "value") and words[-1] not in WITHDRAWALS | CORRECTIONS | {"take"}


def _word(token: Token) -> str:
    """A token among words: `@`, `#`, a single letter, or the word or mark itself."""
    letter = len(token.text) == 1 and token.text.isalpha()
    if token.text in _BOXES:
        return "another"
    return "#" if is_value(token) and token.text != OWN and not letter else token.text


def _with_own(found: Sequence[Token], own: Sequence[Token]) -> list[Token]:
    """Tokens with every occurrence of the answer as one."""
    if not own:
        return list(found)
    texts, key = [token.text for token in found], [token.text for token in own]
    result: list[Token] = []
    place = 0
    while place < len(found):
        boxed = texts[place] in _BOXES and texts[place + 1 : place + 1 + len(key)] == key
        place += boxed
        if texts[place : place + len(key)] == key:
            result.append(Token("value", OWN, found[place].start))
            place += len(key)
        else:
            result.append(found[place])
            place += 1
    return result


def is_doubt(word: str) -> bool:
    """Whether a word doubts what was said: "wait", "hmm"."""
    return word in DOUBTS or bool(_HMM.fullmatch(word))


def plain_start(words: Sequence[str]) -> tuple[str, ...]:
    """The words of a clause without interjections, articles and adverbs before its subject."""
    place = 0
    while place < len(words) and _only_leads(words[place]):
        place += 1
    return tuple(words[place:])


def _only_leads(word: str) -> bool:
    filler = is_filler(word) and word not in ("my", "our")
    return filler or is_doubt(word) or word in INTERJECTIONS
