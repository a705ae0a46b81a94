"""What counts as the same answer where mathematics alone does not say: every switch of the `math` reward, with its default."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, Literal, get_args, get_type_hints

from ouro_rl.core.errors import UserError


@dataclass(frozen=True, kw_only=True)
class MathPolicy:
    """Switches of the grader. The defaults are those of a reward that is trained against: strict where leniency can be gamed."""

    evaluated: bool = True
    """A sum, an integral, a limit, arithmetic where the gold is a number, or the question's own expression is no answer."""
    relative_tolerance: float = 1e-6
    """Two numbers of which one is a decimal are equal up to this relative error."""
    rounding: Literal["exact", "gold"] = "exact"
    """`gold`: an answer that rounds to the decimals that the gold prints is right (1/9 for 0.11)."""
    percent: Literal["value", "either"] = "value"
    """`value`: 50% is 0.5 and not 50. `either`: the sign may also be left out."""
    units: Literal["agree", "require", "ignore"] = "agree"
    """`agree`: a unit may be left out, but two different measures are different answers. `require`: the gold's must be stated.
    `ignore`: never compared."""
    bases: Literal["require", "ignore"] = "require"
    """`require`: 204 is not 204_5."""
    degrees: bool = True
    """120 degrees are 2 pi / 3."""
    ratios: Literal["fraction", "strict"] = "fraction"
    """`fraction`: 2:1 is the fraction 2/1, yet never the bare number 2. `strict`: ratios equal ratios alone."""
    lists: Literal["unordered", "ordered"] = "unordered"
    """Bare lists, as of solutions: `1,2` is `2,1`. Tuples always have an order."""
    sets: Literal["strict", "lenient"] = "strict"
    """`strict`: {1,2} is not (1,2). `lenient`: it is, in any order."""
    singletons: bool = True
    """{42} is 42."""
    inequalities: Literal["interval", "strict"] = "interval"
    """`interval`: x > 3 is (3, infinity)."""
    vectors: Literal["strict", "tuple"] = "strict"
    """`tuple`: a column or row is also the tuple of its entries."""
    chains: Literal["consistent", "refuse"] = "consistent"
    """`x = 6*7 = 42`: its last part counts if no part contradicts it. `refuse`: only `name = value`."""
    mixed_numbers: bool = True
    """2 1/2 is 5/2; false: it is the product."""
    plain_text: bool = True
    """Python and plain text (`sqrt(2)`, `x**2`, `1e-9`) are read as LaTeX."""
    choices: bool = True
    """Where the gold is an option letter, `(C) 42` is C."""
    several_boxes: Literal["list", "last", "refuse"] = "list"
    """Boxes with nothing but "and", "or", commas between them. `list`: all of them are the answer. `last`: only the last.
    `refuse`: any two boxes that differ, anywhere, are no answer."""

    @classmethod
    def of(cls, options: dict[str, Any]) -> MathPolicy:
        """From a reward's kwargs. UserError for an unknown value."""
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
