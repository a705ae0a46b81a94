"""Reads what a clause is about: the answer, or another candidate."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from rewards.box_context.clauses import OWN
from rewards.box_context.words import (
    ANSWERS,
    NAMES,
    NEGATORS,
    OPINIONS,
    REFUSALS,
    TRUE,
    TRUTHS,
    VERBS,
    any_of,
    is_filler,
)

Subject = Literal["answer", "own", "pronoun", "check"]
"""The answer by name, by its value, by a pronoun, or a check of it."""

PREVIOUS = frozenset("final above previous given boxed first proposed initial stated original earlier last".split())
_WORK = frozenset(
    "calculation computation calculations computations reasoning work approach derivation formula assumption "
    "arithmetic algebra".split()
)
_OTHERS = frozenset(
    "other others another remaining latter former second root roots case cases candidate candidates option "
    "options".split()
)
_ROLES = frozenset("candidate option".split())
_FOUND = frozenset(
    "get gets got give gives gave giving yields yield obtain obtains take taking try trying for say saying guess "
    "think".split()
)
_LEADS = frozenset("would could gives yields leads makes".split())
_BELIEVED = OPINIONS | frozenset("afraid fear realize realized see notice noticed guess convinced doubt".split())


def subject_of(words: Sequence[str]) -> tuple[Subject | None, Sequence[str]]:
    """What a clause says something of, and what it says. None: of something else."""
    place = 0
    while any_of(words[place : place + 1], PREVIOUS, TRUE, ("this", "that", "my", "our")):
        place += 1
    before, head, rest = words[:place], "".join(words[place : place + 1]), words[place + 1 :]
    if any_of((head,), NAMES) and any_of(rest[:1], "#"):  # "the value 40"
        return None, words
    if head in ANSWERS - {"answers"} or head == "value" or (head in NAMES and any_of(before, TRUE)):
        return "answer", rest[1:] if any_of(rest[:1], (OWN, "above")) else rest
    if any_of(before, ("my", "our", "above")) or any_of(rest[:1], ("above",)):
        if head in _WORK:
            return "answer", rest[1:] if any_of(rest[:1], ("above",)) else rest
        if any_of(before[-1:], ("above",)):
            return "answer", words[place:]
    if head in ("verification", "check"):
        return "check", rest
    if any_of(words[:1], ("this", "that", "it")):
        return "pronoun", words[2:] if any_of(words[1:2], NAMES) else words[1:]
    if tuple(words[:1]) == (OWN,):
        return "own", words[1:]
    return ("own", words[3:]) if tuple(words[1:3]) == ("=", OWN) else (None, words)


def without_opinion(words: Sequence[str]) -> tuple[bool, Sequence[str]]:
    """A clause without "I think", and whether it is denied instead: "I doubt", "I do not think"."""
    if not any_of(words[:1], ("i", "we")):
        return False, words
    count = 1
    while any_of(words[count : count + 1], VERBS, NEGATORS) or (count < len(words) and is_filler(words[count])):
        count += 1
    if not any_of(words[count : count + 1], _BELIEVED):
        return False, words
    denied = any_of(words[1:count], NEGATORS) or words[count] == "doubt"
    count += 1
    while count < len(words) and (is_filler(words[count]) or words[count] == "now"):
        count += 1
    return denied, words[count:]


def names_another(words: Sequence[str]) -> bool:
    """Whether a clause names another candidate: "40 would be", "the number 40 is", "x = 40", "for 40", "we get 40"."""
    words = words[1:] if any_of(words[:1], NAMES) else words
    if tuple(words[:1]) == ("#",) and not any_of(words[1:2], ("/", "=", "+", "-", "<", ">", "#")):
        return True
    triples = zip(("", *words), words, (*words[1:], ""), strict=False)
    return any(
        three == "#" and (two in _FOUND or (two == "=" and len(one) == 1 and one.isalpha()))
        for one, two, three in triples
    )


def leads_elsewhere(words: Sequence[str]) -> bool:
    """Whether a clause says what another candidate leads to: "40 would give 3 = 4"."""
    subject = words[2:] if tuple(words[1:2]) == ("=",) else words  # "x = 40"
    return tuple(subject[:1]) == ("#",) and any_of(subject[1:2], _LEADS)


def mentions_another(words: Sequence[str]) -> bool:
    """Whether a clause speaks of other candidates in words: "the other root". "As a candidate" speaks of the answer."""
    pairs = zip(("", *words), words, strict=False)
    return any(two in _OTHERS and not (two in _ROLES and one in ("a", "#", "possible")) for one, two in pairs)


def is_verdict(words: Sequence[str]) -> bool:
    """Whether a clause is nothing but a refusal: "No", "Wrong", "Not correct"."""
    plain = [word for word in words if not is_filler(word)]
    if plain[:1] == ["not"]:
        return "only" not in words and (len(plain) == 1 or (len(plain) == 2 and plain[1] in TRUTHS | {OWN}))
    return len(plain) == 1 and "the" not in words and plain[0] in REFUSALS | {"no", "nope", "nah"}
