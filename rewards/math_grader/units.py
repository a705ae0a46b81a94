"""Units at the end of an answer: their names, and which of them contradict each other."""

from __future__ import annotations

import re

_NAMES = {
    "millimeter": "mm millimetre millimeters millimetres", "centimeter": "cm centimetre centimeters centimetres",
    "meter": "m metre meters metres", "kilometer": "km kilometre kilometers kilometres", "inch": "in inches",
    "foot": "ft feet", "yard": "yd yards", "mile": "mi miles", "milligram": "mg milligrams", "gram": "g grams",
    "kilogram": "kg kilograms kilo kilos", "ton": "tons tonne tonnes", "ounce": "oz ounces", "pound": "lb lbs pounds",
    "second": "s sec secs seconds", "minute": "min mins minutes", "hour": "h hr hrs hours", "day": "days",
    "week": "weeks", "month": "months", "year": "yr yrs years", "cent": "cents", "dollar": "dollars usd bucks",
    "euro": "euros eur", "yuan": "rmb", "degree": "degrees deg", "radian": "radians rad",
    "liter": "l litre liters litres", "milliliter": "ml millilitre milliliters", "gallon": "gal gallons", "cup": "cups",
    "newton": "newtons", "joule": "j joules", "watt": "w watts", "volt": "v volts", "ampere": "amps amperes",
    "kelvin": "kelvins", "celsius": "", "fahrenheit": "", "hertz": "hz", "unit": "units",
    "square": "sq", "cubic": "cu", "per": "/",
}  # fmt: skip
_CANONICAL = {spelling: name for name, text in _NAMES.items() for spelling in (name, *text.split())}
_COMPOUND = {
    "mph": ("mile", "per", "hour"), "kph": ("kilometer", "per", "hour"), "kmh": ("kilometer", "per", "hour"),
    "rpm": ("revolution", "per", "minute"),
}  # fmt: skip
_TEXT = r"\\(?:text|mbox|mathrm|textrm|textbf|mathbf|textit|operatorname)\s*\{[^{}]*\}"
_POWER = r"(?:\s*\^\s*(?:\{\s*-?\d\s*\}|\d))?"
_DEGREE = r"\^\s*\{\s*\\circ\s*\}"
_VALUE_END = r"(?:(?<=[\d})\]%])|(?<=\\pi)|(?<=\\pi ))"
_MARKED = re.compile(
    rf"{_VALUE_END}\s*((?:(?:{_TEXT}){_POWER}[\s/.]*+|\\cdot\s*(?={_TEXT}))++|{_DEGREE}\s*(?:[CF]\b)?)$"
)
_PLAIN = re.compile(rf"(?<=[\d}})])\s*((?:[A-Za-z]++{_POWER}[\s/.]*+)++)$")
_COMMAND = re.compile(r"\\(?:text|mbox|mathrm|textrm|textbf|mathbf|textit|operatorname|cdot)(?![a-zA-Z])")
_NO_UNIT = re.compile(
    r"\b(?:not|no|never|isn|wrong|incorrect|false|if|unless|except)\b|^\W*(?:is|or|and|to|than|when|where|mod)\b|\b(?:or|and|to|than)\W*$",
    re.IGNORECASE,
)
"""Matches words after a number that are not a unit, but change its meaning."""
_WORD = re.compile(r"[A-Za-z]+|/|\d")


def split_unit(answer: str) -> tuple[str, tuple[str, ...] | None]:
    """A normalized answer as (value, unit), with the unit as canonical words with powers; None if there is no unit.

    Any text in a text command after the value is a unit, unless its words change the meaning (`_NO_UNIT`). Plain
    letters are a unit only if all words are known measures, or are too long to be a product of symbols."""
    marked = _MARKED.search(answer)
    if marked and _NO_UNIT.search(_COMMAND.sub(" ", marked.group(1))):
        return answer, None
    if marked and marked.start():
        return answer[: marked.start()].strip(), _words(marked.group(1))
    plain = _PLAIN.search(answer)
    if plain and plain.start() and _is_unit(plain.group(1), answer[: plain.start()].strip()):
        return answer[: plain.start()].strip(), _words(plain.group(1))
    return answer, None


def contradict(gold: tuple[str, ...] | None, answer: tuple[str, ...] | None) -> bool:
    """Whether two units are different known measures. Other nouns ("students") are not compared."""
    if not gold or not answer or gold == answer:
        return False
    measures = [tuple(word for word in unit if word in _NAMES or word.isdigit()) for unit in (gold, answer)]
    return all(set(part) - {"unit", "per", "square", "cubic"} for part in measures) and measures[0] != measures[1]


def is_measure(unit: tuple[str, ...] | None) -> bool:
    return unit is not None and any(word in _NAMES for word in unit)


def _is_unit(text: str, value: str) -> bool:
    words = re.findall(r"[A-Za-z]+", text)
    if any(word.lower() in {"and", "or", "to", "not", "if", "for", "when", "mod", "where"} for word in words):
        return False
    if not re.fullmatch(r"-?[\d.,/ ]+|-?\\frac\{\d+\}\{\d+\}|.*\d", value):
        return False
    if all(word.lower() in _CANONICAL or word.lower() in _COMPOUND for word in words):
        return all(len(word) >= 2 for word in words)  # `5m` is a product
    return all(len(word) >= 3 for word in words) and bool(re.fullmatch(r"-?[\d.,/ ]+", value))


def _words(text: str) -> tuple[str, ...]:
    text = _COMMAND.sub(" ", text)
    text = re.sub(_DEGREE, " degree ", text)
    found: list[str] = []
    for word in _WORD.findall(text):
        found += _COMPOUND.get(word.lower(), (_CANONICAL.get(word.lower(), word.lower()),))
    if "square" in found or "cubic" in found:  # `square feet` means `ft^2`
        power = "2" if "square" in found else "3"
        found = [word for word in found if word not in ("square", "cubic")]
        found.insert(1, power)
    return tuple(found)
