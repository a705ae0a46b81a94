"""Words around an answer, in normalized LaTeX: text commands that hold mathematics, labels before, qualifiers after."""

from __future__ import annotations

import re

from rewards.math_grader.prose import NO_SOLUTION
from rewards.math_grader.spellings import TEXT, TEXT_COMMAND
from rewards.vocabulary.number_words import cardinal
from rewards.vocabulary.units import changes_value, unit_named

_ENVIRONMENT = re.compile(
    r"\\begin\{(cases|aligned|align\*?|gathered|array|split)\}(?:\{[lcr ]*\})?((?:(?!\\begin|\\end).)*)\\end\{\1\}",
    re.DOTALL,
)
_BEFORE_UNIT = re.compile(r"(?:[\d})\]%!]|\\pi|\\cdot|/|\\mu|\\frac\s*\{|\}\s*\{)\s*$")
_DIGIT_AFTER = re.compile(r"\s*[_0-9A-Z]")
"""Matches what follows a letter that is a digit, as in `2\\text{C}_{16}`."""
_AFTER_VALUE = re.compile(r"(?:[\d})\]%!]|\\pi)\s*$")
_STARTS_WITH_NUMBER = re.compile(r"(-?\d[\d.,:/]*(?<![.,:/]))(?![\d])\s*(.*[A-Za-z].*)", re.DOTALL)
_SHORT_LIST = re.compile(r"(?:[A-Z]|-?\d[\d.]*)(?:(?:\s*(?:,|;|and|or|&))+\s*(?:[A-Z]|-?\d[\d.]*))+")
_COUNTED = re.compile(r"(\d+)\s+([A-Za-z]+(?:\s(?!and\b)[A-Za-z]+)?)(\s*,?\s+and\s+(?=\d)|\s*,\s*(?=\d)|$)")
"""Matches one of the counts in "2 boys and 7 girls"."""
_MATH_FONT = re.compile(r"\\math(?:bf|it|sf|tt)(?![a-zA-Z])")
_STATED = re.compile(r"([A-Za-z][A-Za-z ,'-]*)\s(?:is|are|equals)\s+(-?[\d.,/]*\d\s*%?|\(?[A-J]\)?)\.?")
_OPTION = re.compile(r"\(([A-J])\)\s*[.:]?\s*(-?[\d.,/]*\d\s*%?)")
_OPTION_IN_WORDS = re.compile(r"\(?([A-J])[):]\s*([A-Za-z].+)")
_JOINED = re.compile(r"\s*(?:,\s*)?\b(and|or)\b\s*")
_MATHEMATICS = re.compile(r"[^A-Za-z\\]*(?:\\?pi|\u03c0)?[^A-Za-z\\]*")
_LABELED = re.compile(r"[A-Za-z][A-Za-z '-]*[:=]\s*(-?[\d.,/]*\d\s*%?)")
_PREFIX = re.compile(
    rf"(.*?){TEXT}\s*\{{([^{{}}]*)\}}\s*(:?)\s*"
    r"(?![\s^_+*/=<>,)\]}]|\\(?:cdot|times|le|ge|ne|in|cup|cap))(.+)",
    re.DOTALL,
)
_STATES = re.compile(
    r"(?:\b(?:is|equals|are|have area|has area|has length|has value|gives|therefore|thus|hence)|[:=])\s*$",
    re.IGNORECASE,
)
_QUALIFIERS = (
    r"for\s+(?:all|any|every|each|some\s+(?:real\s+)?constant|arbitrary|real|integers?|positive|nonnegative|nonzero)\b|"
    r"where\b|with\s+\S+\s+(?:a|any|an|real|constant|arbitrary)\b|"
    r"as\s+required|as\s+desired|since\b|because\b|(?:with\s+|of\s+)?multiplicity\b|"
    r"after\s+(?:rounding|simplif|reduc|cancel|rationaliz)"
)
_REMARKS = (
    r"since\b|because\b|(?:to\s+)?(?:the\s+)?nearest\b|rounded\b|(?:the\s+)?only\b|by\b|using\b|"
    r"(?:approximately|approx|exact|exactly)(?![^{}]*\d)\b|simplified|in\s+(?:simplest|lowest|the)\b|in\s+[a-z]+$|"
    r"as\s+(?:required|desired|expected)\b|(?:a\s+)?(?:double|repeated|triple|simple)\s+(?:root|zero|solution)\b|a\s+(?:prime|perfect|constant)\b|"
    + _QUALIFIERS
)
_QUALIFIED = re.compile(
    rf"[\s,;]*+(?:{TEXT}\s*\{{[\s,;]*+(?:(?:{_QUALIFIERS})[^{{}}]*|\(\s*(?:{_REMARKS})[^{{}}]*)\}}|[\s,;(]*+\\forall(?![a-zA-Z]))"
    rf"(?P<more>.*)$|(?<=[\s,])(?:for\s+(?:all|any|every|each)|where)\s+(?P<plain>.*)$",
    re.IGNORECASE | re.DOTALL,
)
_RESTATED = re.compile(rf"(-?\d[\d,]*)\s*(?:{TEXT}\s*\{{\s*\(([A-Za-z -]+)\)\s*\}}|\(([A-Za-z -]+)\))")
"""Matches a number that is given in words, too."""
_MEMBERSHIP = re.compile(
    rf"\s*(?:[,;(]|{TEXT}\s*\{{\s*(?:for|where|with)\s*\}})\s*"
    r"[a-zA-Z](?:\s*,\s*[a-zA-Z])*\s*\\in\s*\\(?:mathbb|mathbf)\s*\{?[ZNRQC]\}?(?:\s*[\^_]\s*(?:\{[^{}]*\}|[+*\d]))?\s*\)?$"
)
_HEDGES = re.compile(
    r"\b(?:or|otherwise|else|if|unless|not|except|wrong|incorrect|either|maybe|possibly)\b|\bn['\u2019]t\b",
    re.IGNORECASE,
)


_INFINITE = re.compile(
    r"(?:there are |it has |has )?(?:infinitely many(?: (?:real )?(?:solution|root)s?)?|"
    r"(?:infinite number of|infinite) (?:real )?(?:solution|root)s?)"
)


def equations_as_list(text: str) -> str:
    """An environment of several equations, as in `cases`, as a list of equations."""
    return _ENVIRONMENT.sub(_listed, text)


def _listed(found: re.Match[str]) -> str:
    lines = [line.strip(" ,") for line in found.group(2).split("\\\\") if line.strip(" ,")]
    plain = all("=" in line and "&" not in line and "\\text" not in line for line in lines)
    return ", ".join(lines) if plain else found.group()


def unwrap_texts(text: str) -> str:
    """Take mathematics out of text commands: numbers, single letters, lists of them, and the number before words."""
    return TEXT_COMMAND.sub(_unwrapped, text)


def _unwrapped(found: re.Match[str]) -> str:
    content = found.group(1)
    inner = content.strip()
    if "\\" in inner and _MATH_FONT.match(found.group()) and not re.search(r"\\(?:text|mbox|%|mu|Omega)", inner):
        return f"{{{inner}}}"
    nested = TEXT_COMMAND.fullmatch(inner)
    if nested:
        return _unwrapped(nested)
    if NO_SOLUTION.fullmatch(inner.rstrip(".")):
        return "\\emptyset "
    value = cardinal(inner) if inner else None
    if value is not None and not _AFTER_VALUE.search(found.string[: found.start()]):
        return f" {value} "
    if _MATHEMATICS.fullmatch(content):
        return re.sub(r"\\?pi|\u03c0", r"\\pi ", content)
    if len(inner) == 1 and inner.isalpha():
        before = found.string[: found.start()]
        measured = _BEFORE_UNIT.search(before) and re.search(r"\d", before)
        digit = _DIGIT_AFTER.match(found.string, found.end())
        if unit_named(inner) is not None and measured and not digit:
            return found.group()
        return f" {content}" if before[-1:].isalpha() else content  # `\\cdot\\mathrm{x}` is no `\\cdotx`
    if _SHORT_LIST.fullmatch(inner):
        return _JOINED.sub(r"\\text{ \1 }", inner)
    option = _OPTION.fullmatch(inner)
    if option:
        return f"\\text{{({option.group(1)})}} {option.group(2)}"
    option = _OPTION_IN_WORDS.fullmatch(inner)
    if option:
        return f"\\text{{({option.group(1)})}} \\text{{{option.group(2)}}}"
    stated = _STATED.fullmatch(inner)
    if stated and not changes_value([word.lower() for word in re.findall("[A-Za-z]+", stated.group(1))]):
        return stated.group(2)
    labeled = _LABELED.fullmatch(inner)
    if labeled:
        return labeled.group(1)
    counts = list(_COUNTED.finditer(inner))
    if len(counts) > 1 and "".join(count.group() for count in counts) == inner:
        return " ".join(
            f"{count.group(1)}\\text{{ {count.group(2)}{' and' if 'and' in count.group(3) else ''} }}"
            + ("," if count.group(3).strip() == "," else "")
            for count in counts
        )
    number = _STARTS_WITH_NUMBER.fullmatch(inner)
    if number and not _AFTER_VALUE.search(found.string[: found.start()]):
        return f" {number.group(1)}\\text{{ {number.group(2)}}}"
    return found.group()


def without_words(text: str) -> str:
    """An answer without the statement before its value ("the area is 42") and the qualifier after it ("for all n")."""
    return without_prefix(without_qualifier(text))


def without_qualifier(text: str) -> str:
    """`f(x) = cx \\text{ for any constant } c` without its end, and `8 \\text{ (eight)}` without its words. Words that
    offer another answer stay."""
    restated = _RESTATED.fullmatch(text)
    if restated and cardinal(restated.group(2) or restated.group(3)) == int(restated.group(1).replace(",", "")):
        return restated.group(1)
    found = _QUALIFIED.search(text)
    if found and text[: found.start()].strip() and not _HEDGES.search(found.group()):
        text = text[: found.start()].rstrip(" ,;")
    return _MEMBERSHIP.sub("", text).rstrip(" ,;")


def without_prefix(text: str) -> str:
    """`\\triangle ABC \\text{ has area } 42` without its beginning. Words that deny or compare stay."""
    found = _PREFIX.fullmatch(text)
    if not found:
        return text
    before, words, colon, value = found.groups()
    if re.search(r"\d|=", before) or not _STATES.search(words + colon) or len(words.strip(" :=().")) == 1:
        return text
    plain = re.findall(r"[A-Za-z]+", words)
    if changes_value([word.lower() for word in plain if word.lower() not in ("is", "are", "equals")]):
        return text
    return value.strip()


def names_of(text: str) -> tuple[str, ...] | None:
    """The parts of a list in words alone, "Bob and Anna" or "Anna, Bob", each as `words_key`; None for others."""
    plain = TEXT_COMMAND.sub(lambda found: f" {found.group(1)} ", text).strip().rstrip(".")
    parts = re.split(r"\s*,\s*(?:and\b\s*)?|\s+and\s+|\s*&\s*", plain)
    if len(parts) < 2 or not all(re.fullmatch(r"[A-Za-z][A-Za-z' -]+", part.strip()) for part in parts):
        return None
    return tuple(map(words_key, parts))


def words_key(text: str) -> str:
    """One spelling for the same words: without case, article, quotation marks, end mark and plural."""
    words = re.sub(r"[\"'`\u201c\u201d\u2018\u2019]", "", text.lower()).strip(" .!,;:").split()
    words = words[1:] if len(words) > 1 and words[0] in ("a", "an", "the") else words
    if _INFINITE.fullmatch(" ".join(words)):
        return "infinitely many"
    return " ".join(
        word[:-1] if len(word) > 3 and word.endswith("s") and not word.endswith("ss") else word for word in words
    )


def same_class(gold: str, answer: str) -> bool:
    """Whether two keys of words name one class, "obtuse" and "obtuse triangle"."""
    short, long = sorted((gold, answer), key=len)
    return short in _CLASSES and any(long == f"{short} {noun}" for noun in _CLASSIFIED)


_CLASSES = set(
    map(
        words_key,
        "acute obtuse right isosceles equilateral scalene even odd prime composite rational irrational convergent "
        "divergent increasing decreasing".split(),
    )
)
_CLASSIFIED = set(map(words_key, "triangle angle number function series sequence integer".split()))
