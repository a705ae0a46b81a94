"""Letters that stand for any integer: `n\\pi` for n in Z is `k\\pi` for k in Z."""

from __future__ import annotations

import re

from rewards.math_grader.guards import MAX_CHARS

_ANY_INTEGER = re.compile(
    r"(?<![\\a-zA-Z])([a-zA-Z])[\s$]*\\in[\s$]*\\math(?:bb|bf)\s*\{?\s*Z\s*+\}?+(?!\s*[\^_])"
    r"|(?<![\\a-zA-Z])([a-zA-Z])[\s$}]*(?:\\text\s*\{)?\s*(?:is|an?y?)\s+(?:an?y?\s+)?(?:arbitrary\s+)?integer"
    r"|(?:any|an|all|every|for|some|where)\s+integers?[\s$}\\]*(?:text\s*\{)?\s*([a-zA-Z])(?![a-zA-Z])"
)

_HINT = re.compile("Z|integer")


def with_same_integer(gold: str, answer: str) -> str:
    """The answer with its letter for any integer replaced by the gold's, if both have one and only one."""
    if len(answer) > MAX_CHARS or not _HINT.search(answer):
        return answer
    letters = _letters(gold), _letters(answer)
    if len(letters[0]) != 1 or len(letters[1]) != 1 or letters[0] == letters[1]:
        return answer
    (new,), (old,) = letters
    if re.search(_alone(new), answer) or re.search(_alone(old), gold):
        return answer
    return re.sub(_alone(old), new, answer)


def _letters(text: str) -> set[str]:
    return {letter for found in _ANY_INTEGER.finditer(text) for letter in found.groups() if letter}


def _alone(letter: str) -> str:
    return rf"(?<![\\a-zA-Z]){letter}(?![a-zA-Z])|(?<=\\pi){letter}(?![a-zA-Z])"
