"""Reads the sentence around a box by a small grammar: whether it refuses the box, or makes another value of it.

What leads to the box and what continues it are read as words of closed classes, and what is beside it as a formula.
What no rule reads says nothing about the box."""

from __future__ import annotations

import re
from collections.abc import Iterator

from rewards.box_context import chinese
from rewards.box_context.bound import is_attained
from rewards.box_context.continuation import Continuation
from rewards.box_context.formula import is_operand
from rewards.box_context.lead import Lead
from rewards.box_context.tail import Tail, read_tail
from rewards.box_context.words import (
    ASSUMPTIONS,
    CONCLUSIONS,
    CONTRASTS,
    COPULAS,
    CORRECTIONS,
    DOUBTS,
    HYPOTHETICAL,
    NEGATORS,
    OFFERS,
    REFUSALS,
    any_of,
    spelled_out,
    tokens,
)

_WORDS = re.compile(r"[^\d\\]*|\s*\\(?:text\w*|mbox|mathrm|mathbf)\s*\{[^{}\d]*\}\s*")

_CASES = frozenset("option case possibility answer solution guess candidate choice".split())
_REPLACES = frozenset("no instead rather corrected revised updated edit should forgot".split())
"""Words between two boxes of which the second one replaces the first."""
_NEAR = 40
"""Characters of a text that are read for its first word."""


def is_denied(before: str, boxed: str, after: str) -> bool:
    """Whether the text around a box says that it is not the answer ("not 17", "17 is wrong"), or makes another value
    of it ("17 times 2"). What follows words is not read, since "B is wrong" may be what was asked for."""
    lead = Lead(before)
    if lead.denies() and not (lead.bounds and is_attained(boxed, after)):
        return True
    if chinese.refuses(before, after):
        return True
    if _WORDS.fullmatch(boxed):
        return False
    rest = Continuation(after, several="," in boxed)
    fills_in = any_of(rest.words()[:1], COPULAS, "=")
    return is_operand(before, after) or (lead.changes() and not fills_in) or rest.denies()


def tail_of(before: str, answer: str, after: str) -> Tail:
    """What the text after an answer says of it, to its end."""
    return read_tail(before, answer, after, words_only=bool(_WORDS.fullmatch(answer)))


def offers_another(between: str) -> bool:
    """Whether the text between two boxes offers the second one beside the first ("or maybe", "case 2"), and does not
    take the first one back ("no wait"). "But it could also be" offers it, too."""
    words = _words(between)
    if "unless" in words or any(one in HYPOTHETICAL and "be" in rest[:2] for one, *rest in _triples(words)):
        return True
    denied = any_of(words, NEGATORS, REFUSALS)
    if denied and any(one == "if" and rest[0] in ("that", "this", "it") for one, *rest in _triples(words)):
        return True  # "if that is not accepted"
    numbered = any(one in _CASES and "".join(rest).lstrip("#")[:1].isdigit() for one, *rest in _triples(words))
    offered = numbered or any_of(words, OFFERS)
    return offered and not any_of(words, NEGATORS, DOUBTS, REFUSALS, CONTRASTS, CONCLUSIONS, CORRECTIONS, _REPLACES)


def replaces(between: str) -> bool:
    """Whether the text between two boxes says that the second one replaces the first: "Correction:"."""
    return any_of(_words(between), DOUBTS, CORRECTIONS, _REPLACES)


def _triples(words: list[str]) -> Iterator[tuple[str, str, str]]:
    return zip(words, [*words[1:], ""], [*words[2:], "", ""], strict=False)


def opens_another(text: str) -> bool:
    """Whether a text begins with another answer or with a doubt: "or 43", "but", "wait"."""
    return any_of(_words(text[:_NEAR])[:1], OFFERS, CONTRASTS, DOUBTS, ("if", "when", "no"))


def is_hedged(text: str) -> bool:
    """Whether a text offers another answer, or holds on a condition alone."""
    return any_of(_words(text), OFFERS, ("if",))


def is_conditional(text: str) -> bool:
    """Whether what a text leads to holds on a condition alone."""
    return any_of(_words(text), ASSUMPTIONS, ("if", "unless"))


def _words(text: str) -> list[str]:
    return [token.text for token in tokens(spelled_out(text))]


def other_value(after: str) -> str | None:
    """The other value that the sentence after a box offers, as in "or maybe 18" or "and 18"; None if there is none."""
    return Continuation(after, several=False).other_value()
