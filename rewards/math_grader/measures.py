"""Splits an answer into its value and what stands after it, and puts several measures (5 hours 30 minutes) together."""

from __future__ import annotations

import itertools
import re
from dataclasses import dataclass
from functools import lru_cache

from rewards.math_grader.normalize import clock
from rewards.math_grader.spellings import TEXT
from rewards.vocabulary.units import Suffix, changes_value, read_suffix

_POWER = r"(?:\s*\^\s*(?:\{\s*-?\d\s*\}|-?\d))?"
_TEXT_PART = rf"{TEXT}\s*\{{(?:[^{{}}]|\{{[^{{}}]*\}})*\}}{_POWER}"
_SYMBOL = rf"\\(?:Omega|mu|AA|ell)(?![a-zA-Z])\s*(?:{TEXT}\s*\{{[^{{}}]*\}}|[a-zA-Z])?{_POWER}"
_DEGREE = r"\^\s*\{\s*\\circ\s*\}\s*(?:[CFK](?![a-zA-Z]))?"
_FRACTION = rf"\\frac\s*\{{\s*{_TEXT_PART}\s*\}}\s*\{{\s*{_TEXT_PART}\s*\}}"
_VALUE_END = r"(?:(?<=[\d)}\]%!])|(?<=\\pi)|(?<=\\pi )|(?<=[\d)}\]%!] ))"
_MARKED = re.compile(
    rf"{_VALUE_END}\s*((?:{_FRACTION}|{_TEXT_PART}|{_DEGREE}|{_SYMBOL}|\\cdot\s*(?=\\)|\s*/\s*(?=\\)|[\s.()])++)$"
)
_PLAIN = re.compile(rf"(?<=[\d)}}%])(\s*)((?:[A-Za-z$\u03bc\u03a9]++{_POWER}[\s/.]*+)++)$")
_PLAIN_VALUE = re.compile(r"-?\s*[\d.,/ ]+%?|-?\\frac\{\d+\}\{\d+\}|.*[\d)}]", re.DOTALL)
_FUNCTION = re.compile(r"\\(?:sin|cos|tan|cot|sec|csc|cis|sqrt|frac)(?![a-zA-Z])")
_LETTERS = re.compile(r"[A-Za-z]+")
_COMPOUND = re.compile(
    rf"(-?\d+(?:\.\d+)?)\s*((?:{_TEXT_PART}|[A-Za-z]{{1,8}}(?![A-Za-z]))++)"
    r"\s*(?:,\s*|\\text\{\s*and\s*\}|and\s+)?"
)


@dataclass(frozen=True, slots=True)
class Measure:
    """A value in LaTeX and what stands after it."""

    value: str
    suffix: Suffix
    plain: bool = False
    """The unit is written as plain letters, which may be symbols as well."""


@lru_cache(maxsize=4096)
def split_measure(answer: str, *, single: bool = True) -> Measure:
    """A normalized answer as value and suffix. single: plain letters alone, as in `5 m`, may be units."""
    marked = _MARKED.search(answer)
    if marked and marked.start() and marked.group(1).strip(" .()") and _balanced(marked.group(1)):
        value = answer[: marked.start()].strip()
        suffix = read_suffix(_spelled(marked.group(1)))
        angle = _FUNCTION.search(value) and "\\circ" in marked.group(1)  # the sine of degrees
        if suffix != Suffix() and not angle:
            return Measure(value, suffix)
    plain = _PLAIN.search(answer)
    if plain and plain.start() and _PLAIN_VALUE.fullmatch(answer[: plain.start()]):
        suffix = read_suffix(plain.group(2), single=single)
        words = _LETTERS.findall(plain.group(2))
        if not suffix.rest and (single or all(len(word) > 1 for word in words)):
            return Measure(answer[: plain.start()].strip(), suffix, plain=True)
        if max(map(len, words)) >= 4:
            return Measure(answer[: plain.start()].strip(), suffix, plain=True)
    return Measure(answer, Suffix())


def compound(answer: str) -> list[Measure] | None:
    """`5 hours 30 minutes` as its measures, from the largest unit on; None if it is none of this kind."""
    found: list[Measure] = []
    place = 0
    while place < len(answer):
        part = _COMPOUND.match(answer, place)
        if not part:
            return None
        words = re.sub(r"\band\b", " ", _spelled(part.group(2)))
        suffix = read_suffix(words)
        if suffix.unit is None or suffix.rest or suffix.nouns:
            return None
        found.append(Measure(part.group(1), suffix))
        place = part.end()
    sizes = [measure.suffix.unit.factor for measure in found if measure.suffix.unit]
    if any(one <= other for one, other in itertools.pairwise(sizes)):
        return None  # two values: "3 hours and 4 hours"
    kinds = {measure.suffix.unit.dimensions for measure in found if measure.suffix.unit}
    return found if len(found) > 1 and len(kinds) == 1 else None


def _balanced(text: str) -> bool:
    return text.count("(") == text.count(")")


def _spelled(text: str) -> str:
    """Units in LaTeX as plain text."""
    text = re.sub(r"\\frac\s*\{(.*?\})\s*\}\s*\{", r"\1/{", text)
    text = re.sub(_DEGREE, lambda found: f" \u00b0 {found.group()[-1] if found.group()[-1] in 'CFK' else ''} ", text)
    text = re.sub(r"\\mu(?![a-zA-Z])\s*", "\u03bc", text)
    text = re.sub(r"\\Omega(?![a-zA-Z])", "\u03a9", text)
    text = re.sub(rf"\u03bc\s*{TEXT}\s*\{{", "\u03bc", text)
    text = re.sub(r"\\cdot(?![a-zA-Z])", "\u00b7", text)
    text = re.sub(rf"{TEXT}\s*\{{", " ", text)
    text = re.sub(r"(?<!\^)\{|(?<!\d)\}|\\circ", " ", text)
    return text


def without_remark(answer: str) -> str:
    """An answer of a sentence without the words after it, if they are no unit and change nothing: "42 on the plane"."""
    measure = split_measure(answer)
    rest = measure.suffix.rest if clock(answer) is None else ()
    return measure.value if rest and not changes_value(rest) and measure.suffix.unit is None else answer
