"""Compares answers that are equations, or chains of equations."""

from __future__ import annotations

import re
from abc import abstractmethod
from collections.abc import Sequence

from rewards.math_grader.brackets import split_top, unwrap
from rewards.math_grader.normalize import canonical, integer, number
from rewards.math_grader.policy import MathPolicy
from rewards.math_grader.structure import derivative_of, is_name, is_simple_name
from rewards.math_grader.values import Values, every, is_numeric, rounds_to, some

_GREEK = (
    "alpha beta gamma delta epsilon zeta eta theta iota kappa lambda mu nu xi rho sigma tau phi chi psi omega"
).split()
_QUANTITY = re.compile(
    r"(?:(?P<small>[a-z])|(?P<large>[A-Z])|(?P<points>[A-Z]{2,4})|\\(?P<greek>" + "|".join(_GREEK) + r"))"
    r"(?:_\{?(?P<index>\w+)\}?)?(?P<inverse>\^\{-1\}(?=\s*\())?(?P<primes>'*)\s*(?:\(\s*(?P<place>[^()]*?)\s*\))?"
)
"""A letter (or the points of a segment or figure), its index, its primes, and the argument of a function or inverse."""
_RESIDUE = re.compile(
    r"(?:(?P<name>\\?[a-zA-Z]+(?:_\w)?)\s*\\equiv(?![a-zA-Z]))?(?P<value>(?:(?!\\equiv)[^=,;])+?)"
    r"\\(?:pmod|bmod|mod|text\s*\{\s*mod\s*\})(?![a-zA-Z])\s*(?P<modulus>[^=,;]+)"
)
"""A residue with its modulus, `3 \\pmod 7`, also as that of an unknown, `x \\equiv 3 \\pmod 7`."""
_RELATIONS = {"<", ">", "\\le", "\\ge", "\\ne"}
_MOST_DIGITS = 1000
_KINDS = ("small", "large", "points", "greek")


class Equations(Values):
    """Compares equations. `equal` is what compares whole answers."""

    @abstractmethod
    def equal(self, gold: str, answer: str) -> bool | None: ...

    def single(self, gold: str, answer: str) -> bool | None:
        """Compare two answers without parts: equations and chains of equations, else values."""
        if "==" in answer and "==" not in gold and not any(map(is_name, split_top(answer, {"="})[::2])):
            return False  # a comparison, whose value is a bool
        residues = _RESIDUE.fullmatch(gold), _RESIDUE.fullmatch(answer)
        if residues[0] and residues[1] and self.same_unknown(residues[0], residues[1]):
            values, moduli = (
                [unwrap(found[part].strip()) for found in residues if found] for part in ("value", "modulus")
            )
            return every([self.equal(*moduli), _congruent(values[0], values[1], moduli[0]) or self.equal(*values)])
        left, right = ([part for part in split_top(text, {"="}) if part] for text in (gold, answer))
        if not left or not right:
            return False
        if len(left) == 1 and len(right) == 1:
            rates = _derivative(left[0]), _derivative(right[0])
            if rates[0] and rates[1] and not any(map(str.isdigit, rates[0][2] + rates[1][2])):
                return not _other_quantity(left[0], right[0])
            return self.value(left[0], right[0])
        if len(left) == 1:
            return self.chain(left[0], right)
        if len(right) == 1:
            value = _value_of(left, right[0])
            return self.ask(gold, answer) if value is None else self.equal(value, answer)
        if _may_be_left_out(left) and _may_be_left_out(right) and not _other_quantity(left[0], right[0]):
            same = self.chain(left[-1], right)
            return same if same or canonical(left[0]) == canonical(right[0]) else some([same, self.ask(gold, answer)])
        return self.ask(gold, answer)

    @staticmethod
    def same_unknown(gold: re.Match[str], answer: re.Match[str]) -> bool:
        """Whether two residues may be of one unknown, which may be left out."""
        names = gold["name"], answer["name"]
        return names[0] == names[1] or None in names

    def chain(self, gold: str, parts: Sequence[str]) -> bool | None:
        """Compare a chain such as `x = 6*7 = 42`: its last part is the answer unless another part contradicts it."""
        if self.policy.chains == "refuse" and not (len(parts) == 2 and is_name(parts[0])):
            return False
        if any(len(split_top(part, _RELATIONS)) > 1 for part in parts):
            return False  # `x \\ne 6 = 5`
        value = canonical(parts[-1]) in ("e", "i")
        if len(parts) == 2 and is_simple_name(parts[1]) and not is_simple_name(parts[0]) and not value:
            parts = parts[::-1]  # `42 = x`
        numeric = [part for part in parts[:-1] if is_numeric(part)]
        last = parts[-1]
        loose = type(self)(_LOOSE, self.leaf, self.evaluate)
        agree = every(loose.equal(last, part) for part in numeric) if is_numeric(last) else True
        return every([self.equal(gold, last), agree])

    def near(self, parts: Sequence[str]) -> bool | None:
        """Whether `a \\approx b` holds between numbers: a printed number is a rounding of the first one."""
        values = [part for part in (split_top(part, {"="})[-1] for part in parts) if is_numeric(part)]
        loose = type(self)(_LOOSE, self.leaf, self.evaluate)
        return every(self.rounded(values[0], value, loose) for value in values[1:])

    def rounded(self, exact: str, printed: str, loose: Equations) -> bool | None:
        value, shown = number(exact), number(printed)
        if value is None or shown is None:
            return loose.value(exact, printed)
        return rounds_to(value[0], printed) or value == shown


_LOOSE = MathPolicy(evaluated=False, units="ignore", relative_tolerance=0.02)
"""For the intermediate parts of a chain, which may be rounded."""


def _value_of(equation: Sequence[str], answer: str) -> str | None:
    """The side of the gold's equation that an answer without an equation has to equal; None if it is the whole
    equation. `y = kx` is `kx`, `42 = x` is 42, `AB = 5` is 5."""
    first, last = equation[0], equation[-1]
    if is_simple_name(first):
        return last
    if is_simple_name(last):
        return first
    return last if _may_be_left_out(equation) else None


def _may_be_left_out(equation: Sequence[str]) -> bool:
    """Whether an equation begins with a name for its value. Two letters are a product (`PV = nRT`), unless they are the
    points of a segment with a length (`AB = 5`)."""
    name, value = equation[0], equation[-1]
    return is_simple_name(name) or (is_name(name) and name.strip().isupper() and is_numeric(value))


def _congruent(gold: str, answer: str, modulus: str) -> bool:
    """Whether two integers are congruent: -7 and 5 modulo 12."""
    digits = integer(gold), integer(answer), integer(modulus)
    if None in digits or max(map(len, map(str, digits))) > _MOST_DIGITS:
        return False
    one, other, divisor = (int(found or 0) for found in digits)
    return divisor != 0 and (one - other) % divisor == 0


def _derivative(text: str) -> tuple[str, int, str] | None:
    """A derivative as function, order and variable (empty if it is not named): `\\frac{dy}{dx}`, `y'`."""
    found = _QUANTITY.fullmatch(text.strip())
    letter = found and (found["small"] or found["large"])
    if found and letter and found["primes"]:
        return letter, len(found["primes"]), found["place"] or ""
    return derivative_of(text)


def _other_quantity(gold: str, answer: str) -> bool:
    """Whether two names are certainly not of one quantity: two unknowns (x and y, A and B, AB and CD), two functions
    (f and g), a function and its derivative, its values at two places, or a function and its variable. A function may
    be named by its variable: y for f(x). Names of two kinds, such as x and AB, may be of one quantity."""
    rates = _derivative(gold), _derivative(answer)
    if any(derivative_of(text) for text in (gold, answer)) or all(rates):
        if rates[0] is None or rates[1] is None or rates[0][:2] != rates[1][:2]:
            return True
        return len({rates[0][2], rates[1][2]} - {""}) > 1
    if _is_made_of(gold, answer) or _is_made_of(answer, gold):
        return True
    left, right = (_QUANTITY.fullmatch(text.strip()) for text in (gold, answer))
    if not left or not right:
        return False
    if (left["primes"], left["inverse"]) != (right["primes"], right["inverse"]):
        return True
    if (left["place"] is None) != (right["place"] is None):
        function, other = (left, right) if right["place"] is None else (right, left)
        return function["place"] == other[0]
    places = (left["place"] or "", right["place"] or "")
    if places[0] != places[1] and (any(map(str.isdigit, places)) or all(map(_EVENT.fullmatch, places))):
        return True
    if (left["index"] or "") != (right["index"] or ""):
        return True
    return any(left[kind] and right[kind] and sorted(left[kind]) != sorted(right[kind]) for kind in _KINDS)


def _is_made_of(name: str, other: str) -> bool:
    """Whether a name is something that is computed from the other one: `\\ln x` or `\\Delta x` from x. Marks on a
    letter, as in `\\vec x` and `\\angle A`, may be left out."""
    found = _COMMAND_BEFORE.fullmatch(name.strip())
    return found is not None and found["command"] not in _MARKS and found["rest"] == other.strip()


_COMMAND_BEFORE = re.compile(
    r"\\(?P<command>[a-zA-Z]+)(?:_(?:\w|\{\w+\}))?(?:\s*\((?=.*\)$)|\s*\{(?=.*\}$)|\s+)(?P<rest>.+?)[)}]?"
)
_MARKS = frozenset(
    "vec hat bar tilde overline underline overrightarrow angle measuredangle triangle text mathrm mathbf".split()
)
_EVENT = re.compile(r"[A-Z]")
"""In P(A) and P(B); in f(x) and f(t) the names of the variables do not matter."""
