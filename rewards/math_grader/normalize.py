"""Normalizes answers to one spelling, for comparison as strings and for the parser."""

from __future__ import annotations

import re
from fractions import Fraction
from functools import partial

from rewards.box_context.continuation import is_refusal
from rewards.math_grader.brackets import is_whole
from rewards.math_grader.calls import without_calls
from rewards.math_grader.chinese import translated
from rewards.math_grader.dates import with_one_date
from rewards.math_grader.guards import MAX_CHARS
from rewards.math_grader.prose import in_formulas
from rewards.math_grader.spellings import (
    BASES,
    COMMAND,
    COMMANDS,
    LATEX,
    NOTATION,
    PLAIN,
    RUNS,
    TEXT,
    UNICODE,
    Rules,
    with_hats,
)
from rewards.math_grader.wording import equations_as_list, unwrap_texts, without_words, words_key
from rewards.vocabulary.number_words import cardinal

_WRAPPERS = (("$$", "$$"), ("$", "$"), ("\\(", "\\)"), ("\\[", "\\]"))
_SPACE = re.compile(r"(?<![0-9A-Za-z])\s+|\s+(?![0-9A-Za-z])")
_TEXT_ONLY = re.compile(rf"{TEXT}\s*\{{([^{{}}]*)\}}")
_CHOICE = re.compile(r"\(?([A-J])\)?\.?")
_CHOICE_WITH_TEXT = re.compile(r"\(?([A-J])\s*[).:]\)?(?:\s+(?![,;!?])|(?![-+*/^=_<>,;!?]))(.*)", re.DOTALL)
_OTHER_CHOICE = re.compile(r"\([A-J]\)|(?<![A-Za-z])(?:or|and)(?![A-Za-z])|(?<![A-Za-z\\])[A-J](?![A-Za-z\d])")
_CURRENCIES = {
    "\\$": "dollars", "\\pounds": "quid", "\u00a3": "quid", "\\euro": "euros", "\u20ac": "euros", "\u00a5": "yen",
    "\uffe5": "yen", "\\yen": "yen", "\u20b9": "rupees", "Rs.": "rupees", "Rs": "rupees", "\\text{Rs. }": "rupees",
    "\\text{Rs.}": "rupees", "\\text{Rs }": "rupees", "US\\$": "dollars",
    "\\text{US}\\$": "dollars", "\\text{US\\$}": "dollars", **{
        form: word
        for code, word in (("USD", "dollars"), ("EUR", "euros"), ("GBP", "quid"), ("CNY", "yuan"), ("RMB", "yuan"))
        for form in (code, f"\\text{{{code}}}", f"\\text{{{code} }}")
    },
    "\\text{\\$}": "dollars", "\\mathrm{\\$}": "dollars", "\\text{\u20ac}": "euros", "\\text{\u00a3}": "quid",
}  # fmt: skip
_MONEY = re.compile(
    rf"^(-?)\s*({'|'.join(map(re.escape, sorted(_CURRENCIES, key=len, reverse=True)))})\s*"
    r"(-?\d(?:[\d.,]|\{,\}|\\[!,])*|-?\.\d+)"
    r"((?:\s|~|\\[ ,;])*(?:\\text\s*\{\s*)?(?:(?:hundred|thousand|million|billion|trillion)\s*\}?)?)(.*)$",
    re.DOTALL,
)
_MONEY_BEHIND = re.compile(r"^(-?)(\d(?:[\d.,]|\{,\})*)\s*(\u20ac|\u00a3|\\pounds|\\euro|\\text\{[\u20ac\u00a3]\})$")
_LABEL = re.compile(
    rf"(?:[A-J]\s*[.:)](?=\s)|{TEXT}\s*\{{\s*\(?[A-J](?:\)|[.:])?\s*[.:]?\s*\}}|\(\s*[A-J]\s*\)(?=[\s:.]))\s*(?:[.:](?!\d))?\s*(?![\s^_+*/=<>,])(.+)",
    re.DOTALL,
)
_LETTER_LIST = re.compile(r"\(?[A-J]\)?(?:(?:\s*(?:,|;|&|and))+\s*\(?[A-J]\)?)+")
_LETTER_RUN = re.compile(r"[A-J]{2,6}")
_VERDICT = re.compile(r"(yes|no|true|false)\s*(?:[,.;:!]|$)", re.IGNORECASE)
_CLOCK = re.compile(r"(\d{1,2})(?::(\d{2}))?\s*(a\.?\s?m\.?|p\.?\s?m\.?|noon|midnight|o'?clock)?", re.IGNORECASE)
_WORDS = re.compile(r"[A-Za-z][A-Za-z' .-]*")
_FORMULA = re.compile(rf"\d*(?:{TEXT}\{{[A-Za-z0-9_()]+\}}|[A-Z][a-z]?|[()]|_\d|_\{{\d+\}})+")
"""Matches a formula such as `H_2O`, whose letters may stand in text commands."""
_PHRASE = re.compile(r"(?=.*[A-Za-z]{3})[A-Za-z][A-Za-z0-9' ,.-]* [A-Za-z0-9' ,.-]+")
_SHORT_WORDS = {"yes", "no", "odd", "dne", "red", "sat", "sun", "mon"}
_LIST_OF_STRINGS = re.compile(r"""\[\s*(?:(?:"[^"]*"|'[^']*')\s*,?\s*)+\]""")
_INTEGER = re.compile(r"([+-]?)\s*(\d+|\d{1,3}(?:[ ,]\d{3})+)(?:\.0*)?")
_FRACTION = re.compile(
    r"(?P<sign>[+-]?)\s*(?:(?P<whole>\d{1,30})(?:\s*(?=\\)|\s+))?"
    r"(?:\\frac\s*\{\s*(?P<n1>-?\d{1,30})\s*\}\s*\{\s*(?P<d1>-?\d{1,30})\s*\}|(?P<n2>\d{1,30})\s*/\s*(?P<d2>\d{1,30}))"
)
_DECIMAL = re.compile(r"([+-]?)\s*(\d{0,30}\.\d{1,30}|\d{1,3}(?:,\d{3}){1,8}\.\d{1,30})")
_REPEATING = re.compile(r"([+-]?)\s*(\d{0,20})\.(\d{0,20})\s*\\(?:overline|bar|dot)\s*\{\s*(\d{1,20})\s*\}")
_SCIENTIFIC = re.compile(
    r"([+-]?)\s*(\d{1,30}(?:\.\d{1,30})?)\s*\\(?:times|cdot)\s*10\s*\^\s*(?:\{\s*([+-]?\d{1,3})\s*\}|(\d))"
)
_BASE_IN_WORDS = re.compile(r"_\s*\{\s*([a-z]+)\s*\}")
_BASED = re.compile(r"([0-9A-Fa-f]+)_(?:\{\s*(\d{1,2})\s*\}|(\d{1,2}))")


def _raised_or_lowered(table: dict[int, int], sign: str, run: re.Match[str]) -> str:
    return f"{sign}{{{run.group().translate(table)}}}"


def normalize(answer: str, *, plain_text: bool = True) -> str:
    """Normalize an answer: remove wrappers and commands for spacing and sizing, and convert Unicode and (if
    `plain_text`) plain text to LaTeX. An answer that is too long to be parsed is only stripped."""
    text = _single_spaces(answer.strip())
    if len(text) > MAX_CHARS:
        return text
    text = _money(text.replace("\\\\%", "%")).replace("\\$", "")
    for _ in range(3):  # "$\\boxed{x}$." may be wrapped a few times
        for opening, closing in _WRAPPERS:
            inner = text[len(opening) : -len(closing)]
            if inner and text.startswith(opening) and text.endswith(closing) and "$" not in inner:
                text = inner.strip()
        if text.startswith("{") and is_whole(text):
            text = text[1:-1].strip()
        text = text.rstrip(".,; \\\u3002") if not text.endswith("\\\\}") else text
    if _LIST_OF_STRINGS.fullmatch(text):
        text = re.sub(r"""["'\[\]]""", "", text)
    text = text.replace("\\%", "%").replace("$", "")
    for letters, table, sign in RUNS:
        text = letters.sub(partial(_raised_or_lowered, table, sign), text)
    text = with_one_date(translated(_single_spaces(text.translate(UNICODE))))
    text = COMMAND.sub(_command, _rewritten(with_hats(text), LATEX))
    text = _single_spaces(_BASE_IN_WORDS.sub(_base, _rewritten(_single_spaces(text), (*NOTATION, *BASES))))
    text = without_words(unwrap_texts(in_formulas(equations_as_list(text))))
    return (_rewritten(without_calls(text), PLAIN) if plain_text else text).strip()


def _single_spaces(text: str) -> str:
    """A text with runs of spaces as one, on which rules with several optional spaces would take long."""
    return re.sub(r"\s+", " ", text)


def _rewritten(text: str, rules: Rules) -> str:
    for pattern, replacement in rules:
        text = pattern.sub(replacement, text)
    return text


def _command(found: re.Match[str]) -> str:
    name, spaces = found.groups()
    text = COMMANDS.get(name, f"\\{name}")
    return text + spaces if text else ""


def _base(found: re.Match[str]) -> str:
    value = cardinal(found.group(1))
    return f"_{{{value}}}" if value else found.group()


def _money(text: str) -> str:
    """`\\$5` as `5\\text{ dollars}`, and the same for other currencies before a number."""
    found = _MONEY.match(_MONEY_BEHIND.sub(r"\1\3\2", text))
    if not found:
        return text
    sign, currency, digits, multiplier, rest = found.groups()
    if re.search(r"dollar|USD|euro|pound|yen|rupee", rest):
        return f"{sign}{digits}{multiplier}{rest}"
    word = _CURRENCIES[currency]
    if re.fullmatch(r"\s*[A-Za-z /.]+", rest):
        rest = f"\\text{{{rest.rstrip(' .')}}}"
    opened = "\\text{" in multiplier and "}" not in multiplier
    return sign + digits + multiplier + (f" {word} " if opened else f"\\text{{ {word}}}") + rest


def canonical(answer: str) -> str:
    """A key for string equality of normalized answers: two answers with the same key are the same answer."""
    text = _single_spaces(_SPACE.sub("", answer))
    text = re.sub(r"\^\{([0-9a-zA-Z])\}", r"^\1", text)
    if "_" in text and _FORMULA.fullmatch(text):
        return re.sub(rf"{TEXT}\{{|[{{}}]", "", text)
    whole = _TEXT_ONLY.fullmatch(text)
    text = whole.group(1).strip() if whole else text
    if whole and _PHRASE.fullmatch(text):
        return words_key(text)
    choice = _CHOICE.fullmatch(text)
    if choice:
        return choice.group(1)
    return words_key(text) if is_words(text) else text


def is_words(answer: str) -> bool:
    """Whether a normalized answer is plain words, which must not be parsed as a product of one-letter symbols."""
    whole = _TEXT_ONLY.fullmatch(answer)
    if whole:
        return bool(_WORDS.fullmatch(whole.group(1).strip()))
    return bool(_WORDS.fullmatch(answer)) and (
        max(len(word) for word in answer.split()) >= 4 or answer.lower() in _SHORT_WORDS
    )


def integer(answer: str) -> str | None:
    """The digits of a plain integer in one spelling (`-7` for `-007`, `1234` for `1,234`), else None. A string, so that
    integers of any length compare quickly."""
    match = _INTEGER.fullmatch(answer)
    if not match:
        return None
    digits = match.group(2).replace(",", "").replace(" ", "").lstrip("0") or "0"
    return f"-{digits}" if match.group(1) == "-" and digits != "0" else digits


def rational(answer: str) -> tuple[Fraction, bool] | None:
    """A plain fraction, mixed number or decimal as (value, exact), else None. `exact` is False for decimals, which may
    be rounded."""
    digits = integer(answer)
    if digits is not None:
        return (Fraction(digits), True) if len(digits) <= 30 else None
    repeating = _REPEATING.fullmatch(answer)
    if repeating:
        sign, whole, first, period = repeating.groups()
        value = Fraction(f"{whole or 0}.{first or 0}") + Fraction(
            int(period), (10 ** len(period) - 1) * 10 ** len(first)
        )
        return (-value if sign == "-" else value), True
    decimal = _DECIMAL.fullmatch(answer)
    if decimal:
        return Fraction("".join(decimal.groups()).replace(",", "")), False
    match = _FRACTION.fullmatch(answer)
    if not match:
        return None
    numerator, denominator = int(match["n1"] or match["n2"]), int(match["d1"] or match["d2"])
    if denominator == 0 or (match["whole"] and numerator * denominator < 0):
        return None
    value = int(match["whole"] or 0) + Fraction(numerator, denominator)
    return (-value if match["sign"] == "-" else value), True


def number(answer: str, *, mixed: bool = True) -> tuple[Fraction, bool] | None:
    """Like `rational`, but also accepts percentages and scientific notation. With `mixed` False, `2\\frac{1}{2}` is not
    a plain number."""
    text = answer.strip()
    if text.endswith("%"):
        text = text[:-1].strip()
        found = None if text.endswith("%") else number(text, mixed=mixed)
        return found and (found[0] / 100, found[1])
    scientific = _SCIENTIFIC.fullmatch(text)
    if scientific:
        sign, digits, *exponents = scientific.groups()
        value = Fraction(digits) * Fraction(10) ** int(exponents[0] or exponents[1])
        return (-value if sign == "-" else value), False
    fraction = _FRACTION.fullmatch(text)
    if fraction and fraction["whole"] and not mixed:
        return None
    return rational(text)


def choice_of(answer: str, *, bare: bool) -> str | None:
    """The letter of a multiple-choice answer, A to J, else None. Unless `bare`, the option's text may follow it."""
    text = re.sub(r"^(?:option|choice|answer)\s+", "", _TEXT_ONLY.sub(r"\1", answer).strip(), flags=re.IGNORECASE)
    only = _CHOICE.fullmatch(text)
    if only or bare:
        return only.group(1) if only else None
    found = _CHOICE_WITH_TEXT.fullmatch(text)
    text = found.group(2) if found else ""
    return found.group(1) if found and text and not _OTHER_CHOICE.search(text) and not is_refusal(text) else None


def answer_word(answer: str) -> str | None:
    """The yes, no, true or false with which an answer begins, before a comma or the end; None for anything else."""
    text = re.sub(rf"{TEXT}\s*\{{([^{{}}]*)\}}", r"\1", answer).strip()
    found = _VERDICT.match(text)
    return found.group(1).lower() if found else None


def labeled_value(answer: str) -> str | None:
    """The value after an option label, as in `\\textbf{(B)} 24`; None without a label."""
    found = _LABEL.fullmatch(answer)
    return found.group(1).strip() if found else None


def choices_of(answer: str) -> list[str] | None:
    """Several option letters, as in `A, C` or `ACD`, sorted unless one occurs twice; None for anything else."""
    text = re.sub(rf"{TEXT}\s*\{{([^{{}}]*)\}}", r"\1", answer).strip()
    if _LETTER_LIST.fullmatch(text) or (_LETTER_RUN.fullmatch(text) and list(text) == sorted(set(text))):
        letters = re.findall(r"(?<![a-z])[A-J](?![a-z])", text)
        return sorted(letters) if len(set(letters)) == len(letters) else letters
    return None


def clock(answer: str) -> tuple[int, int, bool] | None:
    """A time of day as (hour, minute, whether a.m. or p.m. is certain), on the 24-hour clock if it is; else None."""
    text = re.sub(rf"{TEXT}\s*\{{([^{{}}]*)\}}", r" \1 ", answer).strip()
    found = _CLOCK.fullmatch(text)
    if not found:
        return None
    hour, minute, mark = int(found.group(1)), int(found.group(2) or 0), (found.group(3) or "").lower()
    if hour > 24 or minute > 59 or (found.group(2) is None and not mark):
        return None
    if mark[:1] in ("a", "p"):
        return (hour % 12 + (12 if mark[0] == "p" else 0) if hour <= 12 else hour), minute, True
    if mark[:2] in ("no", "mi"):
        return (12 if mark.startswith("no") else 0), minute, True
    return hour, minute, hour > 12 or is_24_hour(text)


def is_24_hour(answer: str) -> bool:
    """Whether a time without a.m. and p.m. has a zero before its hour, as on the 24-hour clock: `06:40`."""
    return re.fullmatch(r"0\d:\d{2}", answer.strip()) is not None


def based(answer: str) -> tuple[str, str] | None:
    """A number in a named base, as (digits, base); else None."""
    match = _BASED.fullmatch(answer)
    return (match.group(1).lstrip("0").upper() or "0", match.group(2) or match.group(3)) if match else None
