"""Tables that map alternative notations to the notation that the grader reads."""

from __future__ import annotations

import re
import unicodedata

_SUPERSCRIPTS = "\u2070\u00b9\u00b2\u00b3\u2074\u2075\u2076\u2077\u2078\u2079\u207b\u207f", "0123456789-n"
_SUBSCRIPTS = "\u2080\u2081\u2082\u2083\u2084\u2085\u2086\u2087\u2088\u2089", "0123456789"
_FULL_WIDTH = {code: code - 0xFEE0 for code in range(0xFF01, 0xFF5F)}
_SMALL_FORMS = {
    code: unicodedata.normalize("NFKC", chr(code))
    for code in (*range(0xFE50, 0xFE6C), *range(0x1D400, 0x1D800))
    if unicodedata.normalize("NFKC", chr(code)).isascii()
}
"""Small punctuation, and letters and digits in mathematical fonts."""
_VULGAR = {
    code: "\\frac{{{}}}{{{}}}".format(*unicodedata.normalize("NFKC", chr(code)).split("\u2044"))
    for code in (0xBC, 0xBD, 0xBE, *range(0x2150, 0x215F))
}
_GREEK = {
    ord(letter): f"\\{name} "
    for letter, name in zip(
        "\u03b1\u03b2\u03b3\u03b4\u03b5\u03b8\u03bb\u03bc\u03c1\u03c3\u03c6\u03c9\u0394\u03a9",
        "alpha beta gamma delta epsilon theta lambda mu rho sigma phi omega Delta Omega".split(),
        strict=True,
    )
}
UNICODE: dict[int, int | str] = {
    **_FULL_WIDTH, **_SMALL_FORMS, **_VULGAR, **_GREEK,
    **{ord(character): text for character, text in {
        "\u2212": "-", "\u2013": "-", "\u00d7": "\\times ", "\u00b7": "\\cdot ", "\u22c5": "\\cdot ",
        "\u2219": "\\cdot ", "\u00f7": "/", "\u2044": "/", "\u2215": "/", "\u03c0": "\\pi ", "\u221e": "\\infty ",
        "\u222a": "\\cup ", "\u2229": "\\cap ", "\u2264": "\\le ", "\u2265": "\\ge ", "\u2a7d": "\\le ",
        "\u2a7e": "\\ge ", "\u2260": "\\ne ", "\u2208": "\\in ", "\u00b1": "\\pm ", "\u2213": "\\mp ",
        "\u2248": "\\approx ", "\u2205": "\\emptyset ", "\u00b0": "^{\\circ}", "\u211d": "\\mathbb{R}",
        "\u2124": "\\mathbb{Z}", "\u2115": "\\mathbb{N}", "\u2228": "\\text{ or }", "\uff5b": "\\{", "\uff5d": "\\}",
        "\u3001": ",", "\u00a0": " ", "\u2009": " ", "\u202f": " ", "\u2010": "-", "\u2011": "-", "\u2012": "-",
        "\u02da": "^{\\circ}", "\u00ba": "^{\\circ}", "\u00d8": "\\emptyset ", "\u2200": "\\forall ",
        "\u2216": "\\setminus ", "\u2192": "\\to ", "\u21d2": "\\Rightarrow ", "\u2026": "\\ldots ",
        "\u2223": "\\mid ", "\u2282": "\\subset ", "\u2286": "\\subseteq ", "\u2261": "\\equiv ",
        "\u230a": "\\lfloor ", "\u230b": "\\rfloor ", "\u2308": "\\lceil ", "\u2309": "\\rceil ",
        "\u2032": "'", "~": " ", "\u2227": "\\land ", "\u00ac": "\\neg ", "\u2126": "\\Omega ", "\u00b5": "\\mu ",
        "\u00a2": "\\text{ cents}", "\u2211": "\\sum ", "\u220f": "\\prod ", "\u222b": "\\int ", "\u2220": "\\angle ",
        **dict.fromkeys("\ufeff\u200b\u200c\u200d\u200e\u200f\u2060\u00ad\u2061\u2062", ""),
    }.items()},
}  # fmt: skip
RUNS = tuple(
    (re.compile(f"[{letters}]+"), str.maketrans(letters, plain), sign)
    for (letters, plain), sign in ((_SUPERSCRIPTS, "^"), (_SUBSCRIPTS, "_"))
)
TEXT = (
    r"\\(?:text|mbox|mathrm|textrm|textbf|textit|textsf|texttt|textnormal|textup|"
    r"mathbf|mathit|mathsf|mathtt|operatorname)"
)
"""Commands whose argument is text."""
TEXT_COMMAND = re.compile(rf"{TEXT}\s*\{{((?:[^{{}}]|\{{[^{{}}]*\}})*)\}}")
"""Matches such a command with its argument, which may have braces."""
MODULE = r"(?<![\\a-zA-Z])(?:(?:Math|math|np|sympy|sp|S)\.)"
"""Matches what names of Python may begin with."""
_FUNCTIONS = (
    "arcsin arccos arctan cis sin cos tan cot sec csc sinh cosh tanh ln log gcd lcm alpha beta gamma theta lambda pi"
)
_SIZES = "tiny scriptsize footnotesize small normalsize large Large LARGE huge Huge"
_FONTS = "bf it sf tt bfseries itshape boldmath displaystyle textstyle scriptstyle"
_DELIMITER_SIZES = "left right " + " ".join(f"{big}{side}" for big in ("big", "Big", "bigg", "Bigg") for side in " lrm")
COMMANDS = {
    **dict.fromkeys(f"{_SIZES} {_FONTS} {_DELIMITER_SIZES} limits nolimits strut".split(), ""),
    **dict.fromkeys(["!", ",", ";", ":", ">", " ", *"quad qquad hfill hline nonumber".split()], " "),
    **dict.fromkeys("dfrac tfrac cfrac sfrac nicefrac xfrac".split(), "\\frac"),
    **dict.fromkeys("dbinom tbinom".split(), "\\binom"),
    **dict.fromkeys("leq leqq leqslant".split(), "\\le "),
    **dict.fromkeys("geq geqq geqslant".split(), "\\ge "),
    **dict.fromkeys("cupdot sqcup uplus".split(), "\\cup "),
    **dict.fromkeys("varnothing O".split(), "\\emptyset "),
    **dict.fromkeys("lvert rvert vert".split(), "|"),
    **dict.fromkeys("emph textsl textsc textmd textlf".split(), "\\text"),
    "lbrace": "\\{", "rbrace": "\\}", "langle": "(", "rangle": ")", "lt": "<", "gt": ">", "neq": "\\ne ",
    "backslash": "\\setminus ", "degree": "^{\\circ}",
}  # fmt: skip
"""Commands by name, and what they are read as. One that is read as nothing takes the spaces behind it along."""
COMMAND = re.compile(r"\\([a-zA-Z]+|.)(\s*)")


Rules = tuple[tuple[re.Pattern[str], str], ...]
"""Patterns and what they are replaced by, applied in order."""


def _compiled(*rules: tuple[str, str]) -> Rules:
    return tuple((re.compile(pattern), replacement) for pattern, replacement in rules)


_ARGUMENT = r"\{((?:[^{}]++|\{(?:[^{}]++|\{[^{}]*+\})*+\})*+)\}"
"""Matches a braced argument with up to two nested levels of braces."""
_INDEX, _END = r"(?:\{([^{}]*)\}|(\w))", r"([^\[\],;]+?)"
"""Match a subscript or superscript, and an end of an interval."""
_PERCENT = r"(?:per[\s-]*cent|pct)"
_BOX = rf"\\(?:boxed|fbox|framebox(?:\[[^\[\]]*\]){{0,2}})\s*{_ARGUMENT}"
_CHANGES = "increase|decrease|rise|drop|gain|loss|profit|reduction|discount"
_ARROWS = "vec|hat|widehat|overrightarrow|mathbf|boldsymbol|bm|pmb|bold"
_VECTOR = (
    rf"\\(?:{_ARROWS})\s*"
    r"(?:\{[^{}]*[A-Za-z][^{}]*\}|[A-Za-z](?![A-Za-z]))(?:\s*_\s*(?:\{[^{}]*\}|\w))?"
)
UNIT_VECTORS = "ijk"
_BOLD_UNIT = re.compile(
    rf"\\(?:{_ARROWS}|underline)\s*(?:\{{\s*\\?([ijk])(?:math)?\s*\}}|\\?([ijk])(?:math)?(?![a-zA-Z]))"
)


def with_hats(text: str) -> str:
    """Unit vectors in one spelling, `\\hat{i}`. A bold i alone may be the imaginary unit."""
    found = {match.group(1) or match.group(2) for match in _BOLD_UNIT.finditer(text)}
    return _BOLD_UNIT.sub(r"\\hat{\1\2}", text) if found & {"j", "k"} or "\\hat" in text else text


LATEX = _compiled(
    (
        r"(?<![\d},.(\[{])(?<![(\[{]-)(\d+)\{,\}(?=\d{1,2}(?!\d|,\d|\{,))",
        r"\1.",
    ),  # of thousands before three
    (r"(?<=\d)(?:\s*\\!\s*:(?:\s*\\!)?|:\s*\\!)\s*(?=\d)", ":"),
    (r",\s*\\!\s*|(?<![a-zA-Z])\{,\}", ","),
    *4
    * (
        (
            rf"(?<=\d)\s*{_BOX}|{_BOX}(?=\s*(?:\.?\d|\\(?:boxed|fbox)))",
            r"(\1\2)",
        ),  # digits beside a box are no part of it
        (rf"{_BOX}|\\(?:(?:text)?color\s*\{{[^{{}}]*\}}|underline)\s*{_ARGUMENT}", r"\1\2"),
    ),
    (rf"({_VECTOR}\s*)\\times(?=\s*(?:(?:\\left)?\s*\(|\d*\s*{_VECTOR}))", r"\1\\cross "),
    (rf"\)\s*\\times(?=\s*{_VECTOR})", r")\\cross "),
    (r"(\\in\s*)\\mathbf\s*\{?\s*([ZNRQC])(?![a-zA-Z])\s*\}?", r"\1\\mathbb{\2}"),
    (r"\\(vec|hat|mathbf)\s*([a-zA-Z])(?![a-zA-Z])", r"\\\1{\2}"),
    (r"\\(?:color|v?phantom|hspace\*?|vspace\*?|label|tag)\s*\{[^{}]*\}", " "),
    (
        rf"\\(?:boldsymbol|bm|pmb|bold|mathds|mathnormal|ensuremath|mbox\{{\\bf)(?![a-zA-Z])\s*(?:{_ARGUMENT}|(\d|[a-zA-Z]))",
        r"{\1\2}",
    ),
    (r"\\rm\s*\{([^{}]*)\}|\\rm\s+([^{}$\\]+)", r"\\mathrm{\1\2}"),
)
"""Rewrite rules for LaTeX, before `COMMANDS` are read."""
NOTATION = _compiled(
    (r"(?<![\\a-zA-Z^_}])\{([-+=<>.:])\}", r"\1"),
    (r"^(?:\s*\\(?:therefore|implies|Rightarrow|because|to|approx|sim)(?![a-zA-Z])\s*)+", ""),
    (r"\\not\s*=", r"\\ne "),
    (r"\\not\s*\\(in|subset|subseteq|parallel|mid|equiv|sim)(?![a-zA-Z])", r"\\not\1 "),
    (
        r"^\\\{\s*(?:[a-z]|[a-z]\s*\\in\s*\\mathbb\s*\{?R\}?)\s*(?:\||:|\\mid(?![a-zA-Z])|\\colon)\s*((?:[^{}|\\]++|\\[^{}]|\{[^{}|]*+\})*+)\\\}$",
        r"\1",
    ),
    (r"^[a-zA-Z]\s*\\in\s*(?=\\\{)", ""),
    (r"^\\\{\s*\\\}$", r"\\emptyset "),
    (r"\\mathbb\s*R(?![a-zA-Z])", r"\\mathbb{R}"),
    (r"\+\s*\\infty(?![a-zA-Z])", r"\\infty "),
    (rf"(?<![A-Za-z\\])C_\s*{_INDEX}\s*\^\s*{_INDEX}", r"\\binom{\1\2}{\3\4}"),
    (rf"(?<![A-Za-z\\])C\s*\^\s*{_INDEX}_\s*{_INDEX}", r"\\binom{\3\4}{\1\2}"),
    (rf"(?<=\d)\s*(?:\^\s*)?\{{?\s*(?:{TEXT}\s*\{{)?\s*(?:st|nd|rd|th)\s*\}}?\s*\}}?$", ""),
    (rf"(?<=\d)\s*(?:{TEXT}\s*\{{\s*to\s*\}}|\bto\b)\s*(?=\d)", ":"),
    (rf"\]\s*{_END}\s*[;,]\s*{_END}\s*\[", r"(\1,\2)"),
    (rf"^\]\s*{_END}\s*[;,]\s*{_END}\s*\]$", r"(\1,\2]"),
    (rf"^\[\s*{_END}\s*[;,]\s*{_END}\s*\[$", r"[\1,\2)"),
    (r"\\\\\s*\[\s*-?[\d.]+\s*(?:pt|em|ex|mm|cm|in)\s*\]", r"\\\\"),
    (r"\.\s*(?=[)\]]\s*$)", ""),
    (r"([A-Za-z]\([^()|]*)(?<!\\)\|([^()|]*\))", r"\1\\mid \2"),
    (r"<sup>([^<>]*)</sup>", r"^{\1}"),
    (r"<sub>([^<>]*)</sub>", r"_{\1}"),
    (r"&\s*=", "="),
    (rf"\(\s*(?:{TEXT}\s*\{{\s*mod\s*\}}|mod\b)\s*([^()]+)\)", r"\\pmod{\1}"),
    (rf"{TEXT}\s*\{{\s*(?:{_PERCENT}\.?|\\?%)\s*\}}|(?<=[\d}}])\s*{_PERCENT}(?![a-zA-Z])", "%"),
    (rf"(?<=\d)\s*({TEXT}\s*\{{)\s*{_PERCENT}(?![a-zA-Z])", r"%\1"),
    (r"^[\"'`\u2018\u201c]{1,2}(.*?)[\"'`\u2019\u201d]{1,2}$", r"\1"),
    (rf"({TEXT}\s*\{{)\s*[\"'`\u201c\u2018]{{1,2}}([^{{}}\"'`]*)[\"'`\u201d\u2019]{{1,2}}\s*\}}", r"\1\2}"),
    (r"^[Tt]he\s+(?=-?\d)", ""),
    (rf"^(?:{TEXT}\s*\{{\s*)?[Aa]n?\s+({_CHANGES})\s+of\s*\}}?\s*(.+)$", r"\2\\text{ \1}"),
    (rf"{TEXT}\s*\{{\s*(sin|cos|tan|cis|ln|log|gcd|lcm)\s*\}}", r"\\\1 "),
    (rf"{TEXT}\s*\{{\s*(e|i)\s*\}}", r"\1 "),
    (rf"{TEXT}\s*\{{[\s.]*\}}", " "),
    (
        rf"\^\s*\\circ(?![a-zA-Z])|(?<=\d)\s*\^\s*(?:\{{\s*(?:{TEXT}\s*\{{\s*)?o\s*\}}?\s*\}}|{TEXT}\s*\{{\s*o\s*\}}|o(?![a-zA-Z]))",
        r"^{\\circ}",
    ),
    (r"\\(frac|binom)\s*(\d)\s*(\d)(?!\d)", r"\\\1{\2}{\3}"),
    (r"\\frac\s*(\d)\s*\{", r"\\frac{\1}{"),
    (r"(\\frac\s*\{[^{}]*\})\s*([0-9a-zA-Z])", r"\1{\2}"),
    (r"\\sqrt\s*(\d)", r"\\sqrt{\1}"),
)
"""Rewrite rules for LaTeX, after `COMMANDS` are read."""

PLAIN = _compiled(
    (r"(?<![\d.})\]a-zA-Z^])(\d+)/(\d+)(?=\s+[\\a-zA-Z(])", r"\\frac{\1}{\2}"),
    (r"\u221a\s*(\d+|[a-z])", r"\\sqrt{\1}"),
    (r"\u221b\s*(\d+|[a-z])", r"\\sqrt[3]{\1}"),
    (r"\u221a\s*(?=\{)", r"\\sqrt"),
    (r"\u221b\s*(?=\{)", r"\\sqrt[3]"),
    (rf"{MODULE}?log(2|10)\s*\(", r"\\log_{\1}("),
    (r"(?<=\d)\s*[xX]\s*10\s*(?=\^)", r"\\times 10"),
    (r"(?<=[)\]])\s*U\s*(?=[(\[{])", r"\\cup "),
    (r"(?<![\\a-zA-Z])(?:infty|infinity|inf|oo)(?![a-zA-Z])", r"\\infty "),
    (rf"{MODULE}[eE](?![a-zA-Z])", "e"),
    (rf"{MODULE}?PI(?![a-zA-Z])", r"\\pi "),
    (rf"{MODULE}?({'|'.join(_FUNCTIONS.split())})(?![a-zA-Z])", r"\\\1 "),
    (r"^(-?\d+(?:\.\d+)?)[eE]([+-]?\d{1,3})$", r"\1\\times 10^{\2}"),
    (r"\\?\*\\?\*", "^"),
    (r"\\?\*", r" \\cdot "),
    (r"<=", r"\\le "),
    (r">=", r"\\ge "),
    (r"!=", r"\\ne "),
)
"""Rewrite rules for plain text and Python."""

_BASE = r"(two|three|four|five|six|seven|eight|nine|ten|twelve|sixteen|\d{1,2})"
BASES = _compiled(
    (rf"{TEXT}\s*\{{\s*([0-9A-F]+)\s*\}}\s*(?=_\s*\{{?\s*\(?\s*(?:{TEXT}|\d))", r"\1"),
    (
        rf"_\s*(?:\{{\s*)?(?:{TEXT}\s*\{{)?\s*\(?\s*(?:base\s*\}}?\s*)?{_BASE}\s*\)?\s*\}}?\s*\}}?$",
        r"_{\1}",
    ),
    (rf"(?<=[0-9A-F])\)?\s*{TEXT}\s*\{{\s*\(?\s*(?:in\s+)?base[\s-]*{_BASE}\s*\)?\s*\}}$", r"_{\1}"),
    (rf"(?<=[0-9A-F])\)?\s*{TEXT}\s*\{{\s*\(?\s*(?:in\s+)?base[\s-]*\}}\s*{_BASE}\s*$", r"_{\1}"),
    (rf"(?<=[0-9A-F])\)?\s*\(?\s*(?:in\s+)?base[\s-]*{_BASE}\s*\)?$", r"_{\1}"),
    (r"^\(\s*([0-9A-F]+)\s*\)?\s*_\s*\{?\s*(\w+)\s*\}?$", r"\1_{\2}"),
)
"""Rewrite rules for numbers in a named base."""
