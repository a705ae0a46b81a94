"""Numbers, operators and sets of real numbers in words, as formulas."""

from __future__ import annotations

import re

from rewards.math_grader.spellings import TEXT, TEXT_COMMAND
from rewards.vocabulary.number_words import cardinal, fraction

NO_SOLUTION = re.compile(
    r"(?:there\s+(?:are|is)\s+|has\s+|it\s+has\s+)?no\s+(?:real\s+|such\s+)?(?:solutions?|roots?|zeros?)(?:\s+exists?)?|(?:the\s+)?empty\s+set|null\s+set",
    re.IGNORECASE,
)  # fmt: skip
_ONLY, _ALTOGETHER = r"exactly|precisely|just|only|(?:a\s+)?total\s+of", r"in\s+total|altogether|in\s+all|overall"
_LEAD = re.compile(
    rf"(?P<open>{TEXT}\s*\{{)?\s*(?:(?P<minus>minus|negative)|{_ONLY}|{_ALTOGETHER})\b[\s,:]*(?P<close>\}})?\s*"
    r"(?=[-\d\\(.]|minus\b|negative\b|(?(close)[a-zA-Z](?![a-zA-Z])|(?!)))",
    re.IGNORECASE,
)
"""Words before a number: those for its sign, and those that do not change it."""
_LEADING_WORDS = re.compile(rf"(?:(minus|negative)|{_ONLY})\s+(.+)", re.IGNORECASE)
_OPERATORS = {
    "plus": "+", "minus": "-", "times": "\\cdot ", "multiplied by": "\\cdot ", "over": "/", "divided by": "/",
}  # fmt: skip
_WORDS = "|".join(name.replace(" ", r"\s+") for name in _OPERATORS)
_LETTER = r"(?:(?<=^[a-zA-Z])|(?<=[^a-zA-Z\\][a-zA-Z]))\s*"
_OPERAND = rf"(?:(?<=[\d}})!])|(?<=\\pi)|(?<=\\pi )|{_LETTER})\s*"
"""Matches after a number, a bracket, or one letter."""
_BETWEEN = re.compile(
    rf"{_OPERAND}(?:{TEXT}\s*\{{\s*({_WORDS})\s*\}}|\b({_WORDS})\b)\s*(?=-?[\d\\({{]|[a-zA-Z](?![a-zA-Z]))"
)
_BEHIND = tuple(
    (re.compile(rf"{before}{TEXT}\s*\{{\s*{word}\s*\}}|(?<=\d)\s+{plain}\b"), sign)
    for before, word, plain, sign in (
        (_OPERAND, "factorial", "factorial", "!"), (_LETTER, "squared", "(?!)", "^2"), (_LETTER, "cubed", "(?!)", "^3")
    )
)  # fmt: skip
_SUMMED = rf"(?:{_ALTOGETHER}|total)"
_IN_TOTAL = re.compile(rf"{_OPERAND},?\s*(?:{TEXT}\s*\{{\s*{_SUMMED}\s*\}}|\b{_SUMMED}(?=\s*\}}?$))", re.IGNORECASE)
_ROOT_OF, _RADICAND = r"(?:the\s+)?square\s+root\s+of", r"(\d+|[a-z])(?![\d.a-z^])"
_ROOT = re.compile(
    rf"{TEXT}\s*\{{\s*{_ROOT_OF}\s*(?:\}}\s*{_RADICAND}|{_RADICAND}\s*\}})|^{_ROOT_OF}\s+{_RADICAND}$", re.IGNORECASE
)
_KEYWORDS = re.compile(
    rf"{_WORDS}|factorial|squared|cubed|root|minus|negative|exactly|precisely|just|only|total|overall|altogether|"
    r"in all",
    re.IGNORECASE,
)
_WORD = re.compile(r"(?<![\\a-zA-Z])[a-zA-Z]{3}")
_SPOKEN = re.compile(rf"(.+?)\s+({_WORDS})\s+(.+)")
_DOMAINS = {"re": "R", "in": "Z", "ra": "Q", "na": "N", "co": "C"}
_EVERYTHING = re.compile(
    r"(?:the\s+set\s+of\s+)?(?P<all>(?:all|any|every)\s+)?(?:the\s+)?(?:(?P<sign>non-?\s?zero|(?:non-?\s?)?(?:positive|negative))\s+)?"
    r"(?P<domain>real(?:\s+number)?s?|integers?|rationals?(?:\s+numbers?)?|natural\s+numbers?|complex\s+numbers?|numbers?)(?![a-z])",
    re.IGNORECASE,
)
_SIGNED = {
    "nonzero": "(-\\infty,0)\\cup (0,\\infty)", "positive": "(0,\\infty)", "negative": "(-\\infty,0)",
    "nonnegative": "[0,\\infty)", "nonpositive": "(-\\infty,0]",
}  # fmt: skip
_SUCH_THAT = r"(?:such\s+that|where|with|for\s+which|satisfying|so\s+that)\s+"
_VARIABLE = rf"(?:[a-z]\s*(?:,\s*)?)?(?:(?:{_SUCH_THAT}|(?:that|which)\s+are\s+))?(?:[a-z]\s+(?:is|are)\s+)?"
_GREATER, _LESS = r"(?:greater|larger|more|bigger)\s+than", r"(?:less|smaller)\s+than"
_BOUNDS = tuple(
    (re.compile(rf"{_VARIABLE}(?:{words})\s*(?P<end>[^a-z]*(?:\\[a-z]+[^a-z]*)*)", re.IGNORECASE), form)
    for words, form in (
        (rf"{_GREATER}\s+or\s+equal\s+to|at\s+least|(?:no|not)\s+{_LESS}", "[%s,\\infty)"),
        (rf"{_LESS}\s+or\s+equal\s+to|at\s+most|(?:no|not)\s+{_GREATER}", "(-\\infty,%s]"),
        (rf"(?:strictly\s+)?{_GREATER}", "(%s,\\infty)"),
        (rf"(?:strictly\s+)?{_LESS}", "(-\\infty,%s)"),
    )
)
_RANGE = re.compile(
    _VARIABLE + r"(?P<strictly>strictly\s+)?(?P<word>between|from)\s+(?P<low>.+?)(?:\s+(?:and|to)\s+|:)(?P<high>.+?)"
    r"(?:\s*[,(]?\s*(?P<kind>inclusive|exclusive|both\s+included|both\s+excluded)\)?)?",
    re.IGNORECASE,
)
_CONDITION = re.compile(
    rf"(?:[a-z]\s*,?\s*)?(?:{_SUCH_THAT})?(?P<relation>[a-z]\s*(?:[<>]|\\(?:le|ge|ne)(?![a-z]))[^<>]*)", re.IGNORECASE
)
_EXCEPT = re.compile(r"(?:except(?:\s+for)?|other\s+than|excluding|but)\s+(?:[a-z]\s*=\s*)?(.+)", re.IGNORECASE)
_JOINED = re.compile(r"\s*(?:,\s*)?\b(?:and|or)\b\s*")


def in_formulas(text: str) -> str:
    """An answer whose words are a number or a set as a formula, with operators in words as signs."""
    if not _WORD.search(text):
        return text
    whole = re.sub(r"\s+", " ", TEXT_COMMAND.sub(lambda found: f" {found.group(1)} ", text)).strip().rstrip(".")
    if NO_SOLUTION.fullmatch(whole):
        return "\\emptyset"
    found = number_in_words(whole) or _set_in_words(whole)
    return _with_operators(text) if found is None else found


def number_in_words(words: str) -> str | None:
    """`minus five`, `exactly two thirds`, `five over nine`; None for anything else."""
    lead = _LEADING_WORDS.fullmatch(words)
    if lead:
        inner = number_in_words(lead.group(2))
        if inner is None or not lead.group(1):
            return inner
        return None if inner.startswith("-") else f"-{inner}"
    if words.lower() in ("infinity", "\\infty"):
        return "\\infty"
    value = cardinal(words)
    if value is not None:
        return str(value)
    part = fraction(words)
    if part is not None:
        return f"\\frac{{{part.numerator}}}{{{part.denominator}}}"
    spoken = _SPOKEN.fullmatch(words)
    if not spoken:
        return None
    values = cardinal(spoken.group(1)), cardinal(spoken.group(3))
    return None if None in values else f"{values[0]}{_sign(spoken.group(2))}{values[1]}"


def _sign(words: str) -> str:
    return _OPERATORS[re.sub(r"\s+", " ", words.lower())]


def _with_operators(text: str) -> str:
    if not _KEYWORDS.search(text):
        return text
    for _ in range(2):  # "exactly minus"
        lead = _LEAD.match(text)
        if lead:
            kept = "" if lead["close"] else lead["open"] or ""
            text = kept + ("-" if lead["minus"] else "") + text[lead.end() :]
    text = _ROOT.sub(r"\\sqrt{\1\2\3}", text)
    text = _BETWEEN.sub(lambda found: _sign(found.group(1) or found.group(2)), text)
    for pattern, sign in _BEHIND:
        text = pattern.sub(sign, text)
    return _IN_TOTAL.sub("", text)


def _set_in_words(words: str) -> str | None:
    """`all real numbers except 2` as a set; None for what is none."""
    found = _EVERYTHING.match(words)
    if not found:
        condition = re.fullmatch(rf"(?:all|any|every)\s+{_CONDITION.pattern}", words, re.IGNORECASE)
        return condition["relation"] if condition else None
    real = found["domain"].lower().startswith(("re", "nu"))
    rest = words[found.end() :].strip(" ,")
    sign = re.sub(r"[-\s]", "", (found["sign"] or "").lower())
    if sign:
        return _SIGNED[sign] if real and re.fullmatch("[a-z]?", rest) else None
    if not rest and (not found["all"] or found["domain"].lower().startswith("nu")):
        return None
    domain = "\\mathbb{R}" if real else f"\\mathbb{{{_DOMAINS[found['domain'][:2].lower()]}}}"
    excluded = _EXCEPT.fullmatch(rest)
    if re.fullmatch("[a-z]?", rest):
        return domain
    if excluded:
        return f"{domain} \\setminus \\{{{_JOINED.sub(', ', excluded.group(1))}\\}}"
    return _bounded(rest) if real else None


def _bounded(rest: str) -> str | None:
    """What stands after "all real numbers": a bound, two of them, or a condition."""
    for pattern, form in _BOUNDS:
        bound = pattern.fullmatch(rest)
        if bound and bound["end"].strip():
            return form % bound["end"].strip()
    between = _RANGE.fullmatch(rest)
    if between:
        kind = (between["kind"] or "").lower()
        closed = kind == "inclusive" or kind.endswith("included")
        if between["word"].lower() == "from" and not kind:
            return None
        ends = f"{between['low'].strip()},{between['high'].strip()}"
        return None if closed and between["strictly"] else f"[{ends}]" if closed else f"({ends})"
    condition = _CONDITION.fullmatch(rest)
    return condition["relation"] if condition else None
