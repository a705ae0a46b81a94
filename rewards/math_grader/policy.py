"""Options of the `math` reward for answers that mathematics alone cannot decide, with their defaults."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, Literal, get_args, get_type_hints

from ouro_rl.core.errors import UserError


@dataclass(frozen=True, kw_only=True)
class MathPolicy:
    """Options of the grader. The defaults suit a reward for training: strict where leniency could be exploited."""

    evaluated: bool = True
    """Refuse unevaluated answers: a sum, an integral, a limit, arithmetic where the gold is a number, or the question's
    own expression."""
    relative_tolerance: float = 1e-6
    """Relative tolerance for comparing two numbers if at least one is a decimal."""
    rounding: Literal["exact", "gold"] = "exact"
    """`gold`: an answer that rounds to the gold's decimals is correct (1/9 for 0.11)."""
    percent: Literal["value", "either"] = "value"
    """`value`: 50% equals 0.5 but not 50. `either`: it also equals 50."""
    units: Literal["agree", "require", "ignore"] = "agree"
    """`agree`: a unit can be omitted, but different measures are different answers. `require`: the gold's unit must be
    given. `ignore`: units are not compared."""
    bases: Literal["require", "ignore"] = "require"
    """`require`: 204 does not equal 204_5. `ignore`: the base can be omitted."""
    degrees: bool = True
    """120 degrees equal 2 pi / 3."""
    ratios: Literal["fraction", "strict"] = "fraction"
    """`fraction`: 2:1 equals the fraction 2/1, but not the bare number 2. `strict`: a ratio equals only a ratio."""
    lists: Literal["unordered", "ordered"] = "unordered"
    """Bare lists, such as lists of solutions: `unordered`: `1,2` equals `2,1`. Tuples are always ordered, and so are
    lists of truth values, and lists in which a value occurs twice."""
    sets: Literal["strict", "lenient"] = "strict"
    """`strict`: {1,2} does not equal (1,2). `lenient`: it does, in any order."""
    singletons: bool = True
    """{42} equals 42."""
    inequalities: Literal["interval", "strict"] = "interval"
    """`interval`: x > 3 equals (3, infinity)."""
    vectors: Literal["strict", "tuple"] = "strict"
    """`tuple`: a column or row vector also equals the tuple of its entries."""
    chains: Literal["consistent", "refuse"] = "consistent"
    """`x = 6*7 = 42`: `consistent`: the last part counts if no part contradicts it. `refuse`: only `name = value` is
    accepted."""
    mixed_numbers: bool = True
    """2 1/2 equals 5/2; if false, it is the product."""
    plain_text: bool = True
    """Python and plain text (`sqrt(2)`, `x**2`, `1e-9`) are read as LaTeX."""
    choices: bool = True
    """If the gold is an option letter, `(C) 42` equals C."""
    several_boxes: Literal["list", "last", "refuse"] = "list"
    """Several boxes. `list`: the last box and those separated from it only by "and", "or" or commas are the answer.
    `last`: only the last box is. `refuse`: if any two boxes differ, there is no answer."""

    @classmethod
    def of(cls, options: dict[str, Any]) -> MathPolicy:
        """The policy with the given options (a reward's kwargs). Raises UserError for an invalid value."""
        hints = get_type_hints(cls)
        for name, value in options.items():
            allowed = get_args(hints[name])
            if allowed and value not in allowed:
                raise UserError(f"reward 'math': {name} must be one of {', '.join(allowed)} (got {value!r})")
            if hints[name] is bool and not isinstance(value, bool):
                raise UserError(f"reward 'math': {name} must be true or false (got {value!r})")
        tolerance = options.get("relative_tolerance", 0.0)
        if isinstance(tolerance, bool) or not isinstance(tolerance, int | float) or not 0 <= tolerance < 1:
            raise UserError(f"reward 'math': relative_tolerance must be a number in [0, 1) (got {tolerance!r})")
        return cls(**options)


POLICY_NAMES = tuple(field.name for field in fields(MathPolicy))
DEFAULT_POLICY = MathPolicy()
