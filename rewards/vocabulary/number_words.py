"""Numbers in words: cardinals as values, multipliers ("million", "dozen") and fractions ("thirds") as factors."""

from __future__ import annotations

import re
from collections.abc import Sequence
from fractions import Fraction

_SMALL = {
    word: value
    for value, word in enumerate(
        "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen "
        "seventeen eighteen nineteen".split()
    )
}
_TENS = {
    word: 10 * tens
    for tens, word in enumerate("twenty thirty forty fifty sixty seventy eighty ninety".split(), start=2)
}
_POWERS = {
    "hundred": 100, "thousand": 10**3, "million": 10**6, "billion": 10**9, "trillion": 10**12,
    "quadrillion": 10**15, "lakh": 10**5, "crore": 10**7, "mn": 10**6, "bn": 10**9, "mln": 10**6,
}  # fmt: skip
_COUNTS = {"dozen": 12, "gross": 144, "score": 20}
_ORDINALS = {
    "half": 2, "halve": 2, "third": 3, "quarter": 4, "fourth": 4, "fifth": 5, "sixth": 6, "seventh": 7, "eighth": 8,
    "ninth": 9, "tenth": 10, "eleventh": 11, "twelfth": 12, "thirteenth": 13, "fourteenth": 14, "fifteenth": 15,
    "sixteenth": 16, "seventeenth": 17, "eighteenth": 18, "nineteenth": 19, "twentieth": 20, "thirtieth": 30,
    "fortieth": 40, "fiftieth": 50, "hundredth": 100, "thousandth": 10**3, "millionth": 10**6, "billionth": 10**9,
}  # fmt: skip
_MULTIPLES = {
    "single",
    "double",
    "triple",
    "quadruple",
    "twice",
    "thrice",
    "couple",
    "pair",
    "trio",
    "googol",
    "zillion",
}
_SPLIT = re.compile(r"[\s-]+")


def _singular(word: str) -> str:
    if word.endswith("xes"):
        return word[:-2]
    return word[:-1] if word.endswith("s") and word != "gross" else word


def factor_of(word: str) -> Fraction | None:
    """What a word after a number multiplies it by: 10**6 for "million", 12 for "dozen", 1/3 for "thirds"."""
    one = _singular(word.lower())
    if one in _POWERS or one in _COUNTS:
        return Fraction(_POWERS.get(one) or _COUNTS[one])
    return Fraction(1, _ORDINALS[one]) if one in _ORDINALS else None


def is_number_word(word: str) -> bool:
    """Whether a word is part of the closed class of numbers, of any kind."""
    parts = [_singular(part) for part in _SPLIT.split(word.lower()) if part]
    known = (_SMALL, _TENS, _POWERS, _COUNTS, _ORDINALS, _MULTIPLES)
    return any(any(part in table or part + "s" in table for table in known) for part in parts)


def fraction(text: str) -> Fraction | None:
    """The value of a fraction or mixed number in words: 2/3 for "two thirds", 5/2 for "two and a half" and "2 and a
    half"; None for anything else, ordinals among it ("twenty-third")."""
    whole, joined, part = text.strip().lower().rpartition(" and ")
    *above, below = [word for word in _SPLIT.split(part) if word] or [""]
    denominator = _ORDINALS.get(_singular(below))
    if denominator is None or len(above) > 1 or (not above and below != "half"):
        return None
    numerator = {"a": 1, "an": 1, "": 1, **_SMALL}.get("".join(above), 0)
    if not 1 <= numerator < denominator or (numerator > 1) != (below != _singular(below)):
        return None
    count = (int(whole) if whole.isdecimal() else cardinal(whole)) if joined else 0
    return None if count is None else count + Fraction(numerator, denominator)


def cardinal(text: str) -> int | None:
    """The value of a cardinal in words: 125 for "one hundred and twenty-five"; None for anything else."""
    words = [word for word in _SPLIT.split(text.strip().lower()) if word]
    if not words or words[0] == "and" or words[-1] == "and":
        return None
    return _cardinal([word for word in words if word != "and"])


def _cardinal(words: Sequence[str]) -> int | None:
    total, group, last = 0, 0, None
    for word in words:
        if word in _SMALL:
            if last == "small" or (last == "tens" and _SMALL[word] >= 10) or (word == "zero" and len(words) > 1):
                return None
            group, last = group + _SMALL[word], "small"
        elif word in _TENS:
            if last in ("small", "tens"):
                return None
            group, last = group + _TENS[word], "tens"
        elif word == "hundred":
            if not 1 <= group <= 99:
                return None
            group, last = 100 * group, "hundred"
        elif word in _POWERS:
            if not group:
                return None
            total, group, last = total + group * _POWERS[word], 0, "power"
        elif word == "dozen" and len(words) == 2:
            return 12 * group
        elif word == "a" and len(words) > 1 and last is None:
            group, last = 1, "small"
        else:
            return None
    return total + group
