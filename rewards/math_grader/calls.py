"""Calls of Python and sympy, `sqrt(x)` and `Interval(0, 1)`, as LaTeX."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from rewards.math_grader.spellings import MODULE


def _between(opening: str, closing: str) -> Callable[[Sequence[str]], str]:
    return lambda args: opening + ",".join(args) + closing


def _joined(separator: str) -> Callable[[Sequence[str]], str]:
    return lambda args: separator.join(args)


def _both(form: str) -> Callable[[Sequence[str]], str | None]:
    """A call with exactly two arguments."""
    return lambda args: form.replace("1st", args[0]).replace("2nd", args[1]) if len(args) == 2 else None


def _interval(args: Sequence[str]) -> str | None:
    """`Interval(a, b, left_open, right_open)`. An infinite end is open."""
    if len(args) < 2 or not set(args[2:]) <= {"True", "False"}:
        return None
    left_open, right_open, *_ = *[arg == "True" for arg in args[2:]], False, False
    left = "(" if left_open or args[0] == "-oo" else "["
    return f"{left}{args[0]},{args[1]}{')' if right_open or args[1] == 'oo' else ']'}"


def _open_interval(*sides: str) -> Callable[[Sequence[str]], str | None]:
    return lambda args: _interval([*args, *sides]) if len(args) == 2 else None


def _matrix(args: Sequence[str]) -> str | None:
    """`Matrix([[1, 2], [3, 4]])` as its rows. A list of numbers is a column."""
    text = ",".join(args)
    if not (text.startswith("[") and text.endswith("]")):
        return None
    if text.startswith("[["):
        return text
    return "[" + ",".join(f"[{entry}]" for entry in text[1:-1].split(",")) + "]"


def _abs(args: Sequence[str]) -> str:
    inner = ",".join(args)
    return f"{{|{inner}|}}" if "|" in inner else f"|{inner}|"


def _factorial(args: Sequence[str]) -> str:
    return f"{args[0]}!" if re.fullmatch(r"\w+", args[0]) else f"({args[0]})!"


def _log(args: Sequence[str]) -> str:
    return f"\\log_{{{args[1]}}}({args[0]})" if len(args) == 2 else f"\\log({','.join(args)})"


_CALLS: dict[str, Callable[[Sequence[str]], str | None]] = {
    "sqrt": _between("\\sqrt{", "}"), "\u221a": _between("\\sqrt{", "}"), "cbrt": _between("\\sqrt[3]{", "}"),
    "\u221b": _between("\\sqrt[3]{", "}"), "exp": _between("e^{", "}"), "log": _log,
    "abs": _abs, "Abs": _abs, "factorial": _factorial, "binomial": _both("\\binom{1st}{2nd}"),
    "comb": _both("\\binom{1st}{2nd}"), "Rational": _both("\\frac{1st}{2nd}"), "Fraction": _both("\\frac{1st}{2nd}"),
    "floor": _between("\\lfloor ", "\\rfloor "), "ceiling": _between("\\lceil ", "\\rceil "),
    "ceil": _between("\\lceil ", "\\rceil "), "Max": _between("\\max(", ")"), "Min": _between("\\min(", ")"),
    "asin": _between("\\arcsin(", ")"), "acos": _between("\\arccos(", ")"), "atan": _between("\\arctan(", ")"),
    "Interval": _interval, "Interval.open": _open_interval("True", "True"),
    "Interval.Lopen": _open_interval("True", "False"), "Interval.Ropen": _open_interval("False", "True"),
    "FiniteSet": _between("\\{", "\\}"), "Union": _joined("\\cup "), "Intersection": _joined("\\cap "),
    "Complement": _joined("\\setminus "), "Matrix": _matrix, "ImmutableMatrix": _matrix, "Tuple": _between("(", ")"),
    "Point": _between("(", ")"), "Point2D": _between("(", ")"), "Eq": _both("1st=2nd"), "Ne": _both("1st\\ne 2nd"),
    "Or": _joined("\\text{ or }"), "And": _joined("\\text{ and }"), "Integer": _joined(","),
}  # fmt: skip
_TOKEN = re.compile(
    rf"(?:{MODULE}|(?<![\\a-zA-Z])|(?=[\u221a\u221b]))"
    rf"({'|'.join(re.escape(name) for name in sorted(_CALLS, key=len, reverse=True))})\s*\(|[(),]"
)
_NAMES = tuple(
    (re.compile(pattern), latex)
    for pattern, latex in (
        (rf"{MODULE}?(?<![\\a-zA-Z])EmptySet(?![a-zA-Z])(?:\(\))?", r"\\emptyset "),
        (rf"{MODULE}?(?<![\\a-zA-Z])Reals(?![a-zA-Z])", r"\\mathbb{R}"),
        (r"\)\s*&\s*\(", r")\\text{ and }("),
        (r"\)\s*\|\s*\(", r")\\text{ or }("),
    )
)
_NAMED = re.compile(r"EmptySet|Reals|\)\s*[&|]")
_NUMERIC = re.compile(r"(?:[\d\s+\-*/().]|sqrt|pi|exp|log|sin|cos|[IE](?![a-zA-Z(]))+")
_OPERATION = re.compile(r"[+*/]|(?<=\S)\s*-")
_UNIT = re.compile(r"(?<![\w.])[IE](?!\w)")


def without_calls(text: str) -> str:
    """Calls as LaTeX at any depth; names that are no functions here stay."""
    if _NAMED.search(text):
        for pattern, latex in _NAMES:
            text = pattern.sub(latex, text)
    if _UNIT.search(text) and _NUMERIC.fullmatch(text) and _OPERATION.search(text):
        text = _UNIT.sub(lambda found: found.group().lower(), text)
    return _translated(text) if "(" in text else text


def _translated(text: str) -> str:
    frames: list[tuple[str, str | None, list[str]]] = [("", None, [""])]  # (how it opens, function, arguments)
    place = 0
    for token in _TOKEN.finditer(text):
        frames[-1][2][-1] += text[place : token.start()]
        place = token.end()
        if token.group() == "," and frames[-1][1] is not None:
            frames[-1][2].append("")
        elif token.group().endswith("("):
            frames.append((token.group(), token.group(1), [""]))
        elif token.group() == ")" and len(frames) > 1:
            opening, name, args = frames.pop()
            found = _CALLS[name]([arg.strip() for arg in args]) if name else None
            frames[-1][2][-1] += f"{opening}{','.join(args)})" if found is None else found
        else:
            frames[-1][2][-1] += token.group()
    frames[-1][2][-1] += text[place:]
    return "".join(opening + ",".join(args) for opening, _, args in frames)
