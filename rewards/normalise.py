"""One spelling for answers: the string fast path compares these, and the parser reads them."""

from __future__ import annotations

import re
from fractions import Fraction

from rewards.guards import MAX_CHARS

_WRAPPERS = (("$$", "$$"), ("$", "$"), ("\\(", "\\)"), ("\\[", "\\]"))
_UNICODE = str.maketrans(
    {
        "\u2212": "-", "\u2013": "-", "\u00d7": "\\times ", "\u00b7": "\\cdot ", "\u22c5": "\\cdot ",
        "\u00f7": "/", "\u03c0": "\\pi ", "\u221e": "\\infty ", "\u222a": "\\cup ", "\u2229": "\\cap ",
        "\u2264": "\\le ", "\u2265": "\\ge ", "\u2260": "\\ne ", "\u2208": "\\in ", "\u00b1": "\\pm ",
        "\u00b0": "^{\\circ}", "\u00b2": "^{2}", "\u00b3": "^{3}", "\uff0c": ",", "\uff08": "(", "\uff09": ")",
        "\uff1a": ":", "\uff1b": ";", "\uff1c": "<", "\uff1e": ">", "\uff1d": "=", "\u00a0": " ", "\u2009": " ",
    }
)  # fmt: skip
_FUNCTIONS = "arcsin|arccos|arctan|sin|cos|tan|cot|sec|csc|ln|log|gcd|alpha|beta|gamma|theta|lambda"
_REWRITES = tuple(
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        (r"\\(?:left|right|[bB]igg?[lrm]?|displaystyle|textstyle|limits)(?![a-zA-Z])\s*", ""),
        (r",\s*\\!\s*|\{,\}", ","),
        (r"(?<!\\)\\[!,;:> ]|(?<!\\)\\q?quad(?![a-zA-Z])|~", " "),
        (r"^\s*(?:\\approx|\\sim|\u2248)(?![a-zA-Z])\s*", ""),
        (r"^\\\{\s*[a-z]\s*(?:\||:|\\mid)\s*([^{}|]*)\\\}$", r"\1"),
        (r"\\[dtc]frac(?![a-zA-Z])", r"\\frac"),
        (
            r"\\(?:text|mbox|mathrm|textbf|textit|mathbf|operatorname)\s*\{\s*(sin|cos|tan|ln|log|gcd|lcm|e|i)\s*\}",
            r"\1 ",
        ),
        (r"\\(?:leqslant|leqq)(?![a-zA-Z])", r"\\le "),
        (r"\\(?:geqslant|geqq)(?![a-zA-Z])", r"\\ge "),
        (r"\\lt(?![a-zA-Z])", "<"),
        (r"\\gt(?![a-zA-Z])", ">"),
        (r"\^\s*\\circ(?![a-zA-Z])", r"^{\\circ}"),
        (r"\\(frac|binom)\s*(\d)\s*(\d)(?!\d)", r"\\\1{\2}{\3}"),
        (r"\\frac\s*(\d)\s*\{", r"\\frac{\1}{"),
        (r"(\\frac\s*\{[^{}]*\})\s*([0-9a-zA-Z])", r"\1{\2}"),
        (r"(?<![\d.})\]a-zA-Z^])(\d+)/(\d+)(?=\s+[\\a-zA-Z(])", r"\\frac{\1}{\2}"),
        (r"\\sqrt\s*(\d)", r"\\sqrt{\1}"),
        (r"\u221a\s*(\d+|[a-z])", r"\\sqrt{\1}"),
        (r"\u221a\s*\(([^()]*)\)", r"\\sqrt{\1}"),
        (r"(?<![\\a-zA-Z])sqrt\s*\(([^()]*)\)", r"\\sqrt{\1}"),
        (r"(?<![\\a-zA-Z])(?:Math\.|math\.|np\.)?(pi|PI)(?![a-zA-Z])", r"\\pi "),
        (r"(?<![\\a-zA-Z])(?:infty|infinity)(?![a-zA-Z])", r"\\infty "),
        (r"(?<![\\a-zA-Z])(?:Math|math|np)\.(?:e|E)(?![a-zA-Z])", "e"),
        (rf"(?<![\\a-zA-Z])({_FUNCTIONS})(?![a-zA-Z])", r"\\\1 "),
        (r"\\?\*\\?\*", "^"),
        (r"\\?\*", r" \\cdot "),
    )
)
_SPACE = re.compile(r"(?<![0-9A-Za-z])\s+|\s+(?![0-9A-Za-z])")
_TEXT_ONLY = re.compile(r"\\(?:text|mbox|mathrm|textbf|textit|mathbf)\s*\{([^{}]*)\}")
_CHOICE = re.compile(r"\(?([A-Z])\)?\.?")
_WORDS = re.compile(r"[A-Za-z][A-Za-z' .-]*")
_LIST_OF_STRINGS = re.compile(r"""\[\s*(?:(?:"[^"]*"|'[^']*')\s*,?\s*)+\]""")
_INTEGER = re.compile(r"([+-]?)\s*(\d+|\d{1,3}(?:[ ,]\d{3})+)(?:\.0*)?")
_FRACTION = re.compile(
    r"(?P<sign>[+-]?)\s*(?:(?P<whole>\d{1,30})(?:\s*(?=\\)|\s+))?"
    r"(?:\\frac\s*\{\s*(?P<n1>-?\d{1,30})\s*\}\s*\{\s*(?P<d1>-?\d{1,30})\s*\}|(?P<n2>\d{1,30})\s*/\s*(?P<d2>\d{1,30}))"
)
_DECIMAL = re.compile(r"([+-]?)\s*(\d{0,30}\.\d{1,30})")
_BASED = re.compile(r"([0-9A-F]+)_\{?(\d{1,2})\}?")


def normalise(answer: str) -> str:
    """One spelling of an answer: no wrappers, no spacing or sizing commands, unicode and plain text as LaTeX.
    An answer that is too long to be parsed anyway comes back as it is, stripped."""
    text = answer.strip()
    if len(text) > MAX_CHARS:
        return text
    text = text.replace("\\$", "")
    for _ in range(3):  # "$\\boxed{x}$." may be wrapped a few times
        for opening, closing in _WRAPPERS:
            inner = text[len(opening) : -len(closing)]
            if inner and text.startswith(opening) and text.endswith(closing) and "$" not in inner:
                text = inner.strip()
        text = text.rstrip(". \\")
    if _LIST_OF_STRINGS.fullmatch(text):
        text = re.sub(r"""["'\[\]]""", "", text)
    text = text.replace("\\%", "%").translate(_UNICODE)
    for pattern, replacement in _REWRITES:
        text = pattern.sub(replacement, text)
    return text.strip()


def canonical(answer: str) -> str:
    """A key for string equality of *normalised* answers: two answers with one key are the same answer."""
    text = re.sub(r"\s+", " ", _SPACE.sub("", answer))
    text = re.sub(r"\^\{([0-9a-zA-Z])\}", r"^\1", text)
    whole = _TEXT_ONLY.fullmatch(text)
    text = whole.group(1).strip() if whole else text
    choice = _CHOICE.fullmatch(text)
    if choice:
        return choice.group(1)
    return text.lower() if is_words(text) else text


def is_words(answer: str) -> bool:
    """Whether a normalised answer is plain words, which no parser may read as a product of one-letter symbols."""
    whole = _TEXT_ONLY.fullmatch(answer)
    if whole:
        return bool(_WORDS.fullmatch(whole.group(1).strip()))
    return bool(_WORDS.fullmatch(answer)) and max(len(word) for word in answer.split()) >= 4


def integer(answer: str) -> str | None:
    """The digits of a plain integer in one spelling (`-7` for `-007`, `1234` for `1,234`), else None. Stays a string:
    numbers of any length compare at once."""
    match = _INTEGER.fullmatch(answer)
    if not match:
        return None
    digits = match.group(2).replace(",", "").replace(" ", "").lstrip("0") or "0"
    return f"-{digits}" if match.group(1) == "-" and digits != "0" else digits


def rational(answer: str) -> tuple[Fraction, bool] | None:
    """A plain fraction, mixed number or decimal as (value, exact), `exact` being false for decimals (they may be
    rounded); else None."""
    digits = integer(answer)
    if digits is not None:
        return (Fraction(digits), True) if len(digits) <= 30 else None
    decimal = _DECIMAL.fullmatch(answer)
    if decimal:
        return Fraction("".join(decimal.groups())), False
    match = _FRACTION.fullmatch(answer)
    if not match:
        return None
    numerator, denominator = int(match["n1"] or match["n2"]), int(match["d1"] or match["d2"])
    if denominator == 0 or (match["whole"] and numerator * denominator < 0):
        return None
    value = int(match["whole"] or 0) + Fraction(numerator, denominator)
    return (-value if match["sign"] == "-" else value), True


def based(answer: str) -> tuple[str, str] | None:
    """A number in a named base, as (digits, base); else None."""
    match = _BASED.fullmatch(answer)
    return (match.group(1).lstrip("0"), match.group(2)) if match else None


def contradicts_itself(answer: str) -> bool:
    """Whether an equation chain states two different plain numbers (`41 = 42`): a guess at both is no answer."""
    values = [rational(part.strip()) for part in re.split(r"(?<![<>!\\])=", answer)]
    return len({value for value, exact in filter(None, values) if exact}) > 1
