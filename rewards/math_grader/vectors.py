"""Vectors in unit vectors, `3\\mathbf{i}+\\mathbf{j}`, and coordinates with names, `y=-1, x=3`."""

from __future__ import annotations

import re
from collections.abc import Sequence

from rewards.math_grader.brackets import split_top
from rewards.math_grader.normalize import canonical
from rewards.math_grader.spellings import UNIT_VECTORS

_TERM = re.compile(r"(?P<factor>.*?)\s*(?:\\cdot\s*)?\\hat\{(?P<unit>[ijk])\}", re.DOTALL)
_ORDERED = re.compile(r"[xyz]|[abcd]|[a-zA-Z]_\{?\d\}?")


def components(text: str, count: int) -> list[str] | None:
    """The `count` components of a sum of multiples of unit vectors; None for anything else."""
    if "\\hat" not in text:
        return None
    found: dict[str, str] = {}
    for term in split_top(text, {"+"}):
        for place, part in enumerate(split_top(term, {"-"})):
            if place == 0 and not part and "-" in term:
                continue
            multiple = _TERM.fullmatch(part)
            if not multiple or multiple["unit"] in found or "\\hat" in multiple["factor"]:
                return None
            found[multiple["unit"]] = ("-" if place else "") + (multiple["factor"].strip() or "1")
    units = UNIT_VECTORS[:count]
    return [found.get(unit, "0") for unit in units] if found.keys() <= set(units) else None


def coordinates(items: Sequence[str]) -> Sequence[str]:
    """The values of a list of named coordinates in the order of their names, if they have one: x, y, z; a, b, c;
    x_1, x_2. Other lists stay."""
    sides = [split_top(item, {"="}) for item in items]
    names = [canonical(side[0]) for side in sides]
    ordered = all(len(side) == 2 and _ORDERED.fullmatch(name) for side, name in zip(sides, names, strict=True))
    if not ordered or len(set(names)) < len(names) or len({_family(name) for name in names}) > 1:
        return items
    return [side[1] for _, side in sorted(zip(names, sides, strict=True))]


def _family(name: str) -> str:
    return name[0] + "_" if "_" in name else "xyz" if name in "xyz" else "abcd"
