"""Extracts the final answer from a text, in time linear in the text's length for every input."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Literal

from rewards.box_context.sentence import is_denied, offers_another, other_value, replaces
from rewards.box_context.unit import SIGN_AFTER, half_after, percent_after, unit_after
from rewards.statements import last_hashes, stated_answer, tagged_answer, unless_taken_back

Accept = Literal["box", "phrase", "any"]
"""Where to look for an answer when there is no box. `box`: nowhere. `phrase`: after `####` or "the answer is".
`any`: also the last formula, or the whole text if it is short. `any` is too lenient for training: a truncated
completion would be rewarded for an intermediate formula."""

SeveralBoxes = Literal["list", "last", "refuse"]
"""How to read several boxes. `list`: boxes with only separators, "and" or "or" between them form one list, so that
`\\boxed{41} or \\boxed{42}` counts as two answers, not as the better one. `last`: only the last box counts.
`refuse`: two different boxes count as no answer."""

BOXES = ("\\boxed", "\\fbox", "\\framebox")
_BOX_TOKEN = re.compile(rf"(?:{'|'.join(map(re.escape, BOXES))})\s*\{{|\\[\\{{}}]|\{{|\}}")
_NUMBERING = r"(?:\d{1,2}|[a-zA-Z]|[ivx]{1,4})"
_ITEM = rf"(?:\({_NUMBERING}\)|(?<=\s)(?:[-+\u2022]|-{{3,}}|_{{3,}}|{_NUMBERING}[.)])(?=\s))"
"""Matches what an item of a list begins with, and a rule between paragraphs."""
_BETWEEN_BOXES = re.compile(
    rf"(?:\s*+{_ITEM}|\s++|[$.,;:&/|*\u2014\u2026\[\]]|\\[()\[\],;:! ]|\\q?quad|\\\\"
    r"|\\(?:vee|lor|cup|l?dots)(?![a-zA-Z])|\b(?:and|or|also|as\s+well\s+as|vs|versus)\b|\\(?:text|mbox)\s*\{\s*(?:and|or|vs\.?|,)\s*\}"
    r"|(?:[a-zA-Z]\w{0,3}|[A-Za-z]{1,20}(?= *:))\s*[=:]\s*)*+"
)
_NEAR = 80
"""Characters between two boxes within which a hedge joins them."""
_UNBRACED = re.compile(
    r"\\boxed\s*+(-?\s*+\d++(?:\.\d++)?|(?<=\s)[A-Za-z])(?=\s*+[.,]?\s*(?:\$|\\[)\]])|[ \t]*+\.?[ \t]*+(?:\n|$))"
)
"""Matches a box around a number or a letter without braces, up to the end of its formula or line."""
_FORMULA = re.compile(r"\$\$([^$]{1,1000})\$\$|\$([^$]{1,1000})\$|\\\[(.{1,1000}?)\\\]|\\\((.{1,1000}?)\\\)", re.DOTALL)
_TAGGED = re.compile(r"<answer>(.*?)(?:</answer>|$)", re.DOTALL)
_END_OF_TURN = ("<|im_end|>", "<|im_start|>", "<|endoftext|>", "<|eot_id|>", "<|end|>")
_TAIL = 4000
"""Number of characters at the end of a text that the fallbacks search."""
_SHORT = 200
"""Longest text, in characters, that may be an answer as a whole."""
_MOST_REFUSED = 100
"""Different boxes that a text may deny; one that denies more has no box for an answer."""
_REACH = 400_000
"""Characters before and after the start of the last box in which boxes are parsed: ten times the length of a
completion, and small enough that megabytes of braces do not delay the run."""


def visible_text(completion: str, *, thinking: bool = False) -> str:
    """The part of a completion that counts as its answer: the text after the last `</think>`, without an unfinished
    thought. `thinking`: the prompt already contains `<think>` (as the chat templates of Thinking models do), so a
    completion without `</think>` has no visible text."""
    end = completion.rfind("</think>")
    if end < 0 and thinking:
        return ""
    tail = completion[end + len("</think>") :] if end >= 0 else completion
    text = tail.partition("<think>")[0]
    ends = [text.find(mark) for mark in _END_OF_TURN]
    return text[: min((end for end in ends if end >= 0), default=len(text))]


def boxes(text: str) -> list[tuple[int, int, str]]:
    """Every complete outermost `\\boxed{...}` as (start, end, content), in order. Ignores escaped braces, and text
    farther than `_REACH` from the start of the last box."""
    last = max(map(text.rfind, BOXES))
    if last < 0:
        return []
    start = max(0, last - _REACH)
    start += (start - len(text[:start].rstrip("\\"))) % 2  # skip a character that the backslash before it escapes
    found: list[tuple[int, int, int]] = []  # (start, content start, content end)
    stack: list[tuple[int, int] | None] = []  # per open brace: (start, content start) if it opens a box, else None
    unclosed = 0  # number of boxes in the stack
    for token in _BOX_TOKEN.finditer(text, start, last + _REACH):
        if not unclosed and token.start() > last:
            break
        opened = token.group()
        if opened == "}":
            box = stack.pop() if stack else None
            if box is not None:
                unclosed -= 1
                while found and found[-1][0] > box[0]:  # an outer box replaces those inside it
                    found.pop()
                found.append((*box, token.start()))
        elif opened == "{":
            stack.append(None)
        elif len(opened) > 2:
            unclosed += 1
            stack.append((token.start(), token.end()))
    return [(start, end + 1, text[content:end]) for start, content, end in found]


def last_boxed(text: str, several: SeveralBoxes = "list") -> str | None:
    """The content of the last box, joined with adjacent boxes as `SeveralBoxes` says. None without a complete box."""
    return _last_of(boxes(text), text, several)


def _last_of(found: Sequence[tuple[int, int, str]], text: str, several: SeveralBoxes) -> str | None:
    """`last_boxed`, of the boxes of a text."""
    if not found:
        return None
    parts = [found[-1]]
    if several == "refuse" and len({content.strip() for *_, content in found}) > 1:
        return None
    for box in reversed(found[:-1]):
        if several != "list" or not _joined(text[box[1] : parts[-1][0]]):
            break
        parts.append(box)
    contents = list(dict.fromkeys(content.strip() for _, _, content in reversed(parts)))
    return ", ".join(contents)


def final_answer(
    completion: str, *, accept: Accept = "phrase", thinking: bool = False, several_boxes: SeveralBoxes = "list"
) -> str | None:
    """The final answer of a completion, or None if it gives none. See `Accept` and `visible_text`."""
    text = _UNBRACED.sub(r"\\boxed{\1}", visible_text(completion, thinking=thinking))
    found = boxes(text)
    while len(found) > 1 and not found[-1][2].strip():  # "I used \\boxed{}"
        found.pop()
    refused: dict[str, str] = {}  # values that the text around them denies, with what follows them
    while found:
        start, end, content = found[-1]
        before, after = text[max(0, start - _TAIL) : start], text[end : end + _TAIL]
        if len(refused) < _MOST_REFUSED and content not in refused and not is_denied(before, content, after):
            break
        refused.setdefault(content, after)
        found.pop()
    boxed = _last_of(found, text, several_boxes)
    if boxed is not None:
        answer = unless_taken_back(before, boxed, after) if boxed else None
        if answer == boxed:
            return _with_rest(boxed, after, several_boxes)
        return answer if accept != "box" else None
    if refused:
        return None if accept == "box" else stated_answer(next(iter(refused.values())))
    if accept == "box" or (several_boxes == "refuse" and found):
        return None
    tail = text[-_TAIL:]
    tagged = list(_TAGGED.finditer(tail))
    if tagged:
        inner = tagged[-1].group(1).strip()
        return tagged_answer(inner) or None
    stated = stated_answer(tail)
    if stated:
        return stated
    if accept == "phrase":
        return None
    return _last_group(_FORMULA, tail) or (text.strip() if len(text) <= _SHORT else None) or None


def _with_rest(boxed: str, rest: str, several: SeveralBoxes) -> str:
    """A boxed answer with the value that the sentence offers beside it, as in `\\boxed{41} or 42`, or with what
    stands after it: the unit, as in `\\boxed{41} km`, or the half of the day."""
    other = other_value(rest) if several != "last" else None
    unit = unit_after(boxed, rest) if other is None else None
    unit = unit or (half_after(boxed, rest) if other is None else None)
    if unit:
        return f"{boxed}\\text{{ {unit}}}"
    if other is None and percent_after(boxed, rest):
        return boxed + SIGN_AFTER
    if other is None or (len(other) <= len(boxed) and rest.startswith(boxed, rest.find(other))):  # the same once more
        return boxed
    return f"{boxed}, {other}"


def gold_answer(gold: str) -> str:
    """The answer in a data set's answer column: its box, the text after `####`, or the whole column."""
    boxed = last_boxed(gold)
    if boxed is not None:
        return boxed
    hashes = last_hashes(gold[-_TAIL:])
    if hashes is not None:
        return hashes
    if len(gold) > _SHORT:
        return final_answer(gold, accept="any") or gold
    return gold.strip()


def _joined(between: str) -> bool:
    """Whether two boxes are one answer: with only separators and labels between them, or a hedge without a
    retraction."""
    if _BETWEEN_BOXES.fullmatch(between):
        return not replaces(between)
    return len(between) <= _NEAR and offers_another(between)


def _group(match: re.Match[str]) -> str:
    return next(group for group in match.groups() if group is not None).strip()


def _last_group(pattern: re.Pattern[str], text: str) -> str | None:
    last = None
    for last in pattern.finditer(text):  # noqa: B007 - the loop only finds the last match
        pass
    return _group(last) if last else None
