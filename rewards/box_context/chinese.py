"""Reads the refusals of Chinese texts directly beside a box, such as the words for "is not the right answer"."""

from __future__ import annotations

import re

_NEAR = 40
"""Characters on either side of a box that are read."""
_MARKS = r"[\s$()\[\]\\*,.:;!\u3002\uff01\uff08\uff0c\uff1a\uff1b]*"
_ANSWER = "(?:答案|结果|解)"
_REFUSED = re.compile(
    rf"{_MARKS}(?:但是?|然而)?(?:[这那该此]个?|它)?(?:{_ANSWER}|值)?"
    rf"(?:(?:并?不是|并非)(?:最终|正确)?的?(?:{_ANSWER}|正确|对的)|是?错[误的了]|[是并]?不(?:对(?!称)|正确|成立))"
)
"""Matches "is not the (right) answer", "this is wrong", "does not hold" after a box."""
_DENIED = re.compile(rf"(?:{_ANSWER}(?:并?不是|不等于|并非|不为)|错误的?{_ANSWER}[是为]?){_MARKS}$")
"""Matches "the answer is not", "the wrong answer is" before a box."""


def refuses(before: str, after: str) -> bool:
    """Whether Chinese words beside a box refuse it."""
    return bool(_DENIED.search(before[-_NEAR:]) or _REFUSED.match(after[:_NEAR]))
