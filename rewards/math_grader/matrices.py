"""Matrices in LaTeX and as nested lists, with a factor before them or transposed."""

from __future__ import annotations

import re

from rewards.math_grader.brackets import is_whole, split_top
from rewards.math_grader.normalize import rational

_TRANSPOSED = r"\^\s*\{?\s*(?:\\top|T|\\intercal|\\mathsf\s*\{?T\}?|\\mathrm\s*\{?T\}?|\\text\{T\})\s*\}?"
_KIND = r"\{(?:[pbB]?(?:small)?matrix\*?|array)\}"
_MATRIX = re.compile(
    rf"(?P<scalar>[^&=]*?)\s*+(?:\\cdot)?\s*+[(\[]?\s*+\\begin{_KIND}\s*"
    rf"(?:\{{[lcr| ]*\}}|\[[lcr]\])?(?P<body>.*)\\end{_KIND}\s*+[)\]]?"
    rf"\s*+(?P<transposed>{_TRANSPOSED})?",
    re.DOTALL,
)
_TRANSPOSED_ROW = re.compile(rf"[(\[](?P<entries>[^&]*)[)\]]\s*{_TRANSPOSED}", re.DOTALL)
"""Matches `(1,2,3)^T`."""


def entries_of(text: str) -> tuple[tuple[str, ...], str] | None:
    """The entries of a matrix in row-major order, and its number of rows; None for anything else."""
    begun = _MATRIX.fullmatch(text)
    scalar = ""
    row = _TRANSPOSED_ROW.fullmatch(text)
    if row:
        table = [[entry] for entry in split_top(row["entries"], {",", ";"})]
        if len(table) == 1:
            return None
    elif begun and "\\begin" not in begun["body"]:
        rows = [row for row in split_top(begun["body"], {"\\\\"}) if row]
        table = [split_top(row, {"&"}) for row in rows]
        if begun["transposed"] and len({len(row) for row in table}) == 1:
            table = [list(column) for column in zip(*table, strict=True)]
        scalar = begun["scalar"].strip()
    elif text.startswith("[") and text.endswith("]") and is_whole(text):
        inner = text[1:-1].strip()
        rows = split_top(inner, {";"})
        if len(rows) > 1:
            table = [split_top(row, {","}) for row in rows]
        else:
            rows = split_top(inner, {","})
            if not all(row.startswith("[") and row.endswith("]") and is_whole(row) for row in rows):
                return None
            table = [split_top(row[1:-1], {","}) for row in rows]
    else:
        return None
    if not table or len({len(row) for row in table}) != 1:
        return None
    entries = [entry for row in table for entry in row]
    return tuple(_scaled(scalar, entry) for entry in entries), str(len(table))


def _scaled(scalar: str, entry: str) -> str:
    """An entry of a matrix with a number before it."""
    if not scalar:
        return entry
    values = rational(scalar), rational(entry)
    if values[0] is None or values[1] is None:
        return f"({scalar})({entry})" if scalar != "-" else f"-({entry})"
    product = values[0][0] * values[1][0]
    return f"\\frac{{{product.numerator}}}{{{product.denominator}}}"
