"""Dates in one spelling: `5th of March` as `March 5`."""

from __future__ import annotations

import re

from rewards.math_grader.spellings import TEXT

_MONTHS = ("january february march april may june july august september october november december").split()
_MONTH = "(" + "|".join(f"{name[:3]}(?:{name[3:]})?" for name in _MONTHS) + r"|sept)\b\.?"
_DAY, _YEAR, _WEEKDAY = r"(\d{1,2})(?:\s*(?:st|nd|rd|th))?", r"(?:\s*,?\s*(\d{4}))?", r"(?:([a-z]{3,6}day)\s*,?\s*)?"
_NAMED = re.compile(
    rf"{_WEEKDAY}(?:the\s+)?(?:{_MONTH}\s*(?:the\s+)?{_DAY}|{_DAY}\s*(?:of\s+)?{_MONTH}){_YEAR}\.?", re.IGNORECASE
)
_NUMBERED = re.compile(r"(\d{4})-(0\d|1[0-2])-([0-3]\d)")
_HINT = re.compile("|".join(name[:3] for name in _MONTHS) + r"|\d-\d\d-", re.IGNORECASE)
_MARKS = re.compile(rf"{TEXT}\s*\{{|[{{}}^$]|\\(?=[\s,])")


def with_one_date(text: str) -> str:
    """An answer that is a date, in one spelling; any other as it is."""
    if len(text) > 80 or not _HINT.search(text):
        return text
    plain = re.sub(r"\s+", " ", _MARKS.sub("", text)).strip()
    numbered = _NUMBERED.fullmatch(plain)
    if numbered:
        year, month, day = numbered.groups()
        return _written("", int(month), int(day), year)
    found = _NAMED.fullmatch(plain)
    if not found:
        return text
    weekday, month_first, day_second, day_first, month_second, year = found.groups()
    name = (month_first or month_second)[:3].lower()
    month = 1 + next(place for place, full in enumerate(_MONTHS) if full.startswith(name))
    return _written(weekday or "", month, int(day_second or day_first), year or "")


def _written(weekday: str, month: int, day: int, year: str) -> str:
    before = f"{weekday.capitalize()}, " if weekday else ""
    return f"\\text{{{before}{_MONTHS[month - 1].capitalize()} {day}{', ' + year if year else ''}}}"
