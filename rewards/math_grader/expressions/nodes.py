"""Trees of expressions, and statements: expressions with relations between them."""

from __future__ import annotations

from dataclasses import dataclass

RELATIONS = {
    "=", "<", ">", "\\le", "\\ge", "\\ne", "\\in", "\\subset", "\\subseteq", "\\supset", "\\supseteq",
    "\\notin", "\\notsubset", "\\notsubseteq", "\\notparallel", "\\notmid", "\\notequiv", "\\notsim",
    "\\mid", "\\nmid", "\\to", "\\rightarrow", "\\leftarrow", "\\Rightarrow", "\\implies", "\\iff", "\\mapsto",
    "\\leftrightarrow", "\\Leftrightarrow", "\\equiv", "\\sim", "\\simeq", "\\cong", "\\approx", "\\parallel",
    "\\perp", "\\propto", "\\ll", "\\gg", ":",
}  # fmt: skip
_FLIPPED = {
    "<": ">", ">": "<", "\\le": "\\ge", "\\ge": "\\le", "=": "=", "\\ne": "\\ne",
    "\\subset": "\\supset", "\\supset": "\\subset", "\\subseteq": "\\supseteq", "\\supseteq": "\\subseteq",
    "\\parallel": "\\parallel", "\\perp": "\\perp", "\\cong": "\\cong", "\\iff": "\\iff",
}  # fmt: skip
INFINITY = "\\infty"
_IN_PIECES = {"abs", "floor", "ceil", "min", "max", "cases"}
CONSTANTS = {"\\pi", "e", "i", INFINITY}


@dataclass(frozen=True, slots=True)
class Node:
    """One operation."""

    op: str
    """`number`, `symbol`, `add`, `mul`, `div`, `neg`, `pow`, `root`, `abs`, `log`, `sum`, ..., a function's name, or
    `apply` for what is compared and not computed."""
    args: tuple[Node, ...] = ()
    name: str = ""
    """The digits of a number, the name of a symbol or of an `apply`."""


@dataclass(frozen=True, slots=True)
class Statement:
    """Expressions with relations between them; a single expression has none."""

    relations: tuple[str, ...]
    parts: tuple[Node, ...]

    def flipped(self) -> Statement | None:
        """The same statement read from right to left; None if a relation has no mirror image."""
        if not all(relation in _FLIPPED for relation in self.relations):
            return None
        return Statement(tuple(_FLIPPED[relation] for relation in reversed(self.relations)), self.parts[::-1])


def symbols(node: Node, bound: frozenset[str] = frozenset()) -> frozenset[str]:
    """The names of the free symbols."""
    if node.op == "symbol":
        return frozenset() if node.name in bound or node.name in CONSTANTS else frozenset([node.name])
    if node.op in ("sum", "prod") and node.name:
        bound |= {node.name}
    return frozenset().union(*(symbols(arg, bound) for arg in node.args))


def factors_of(node: Node) -> list[Node]:
    """The factors of a product or quotient; for others, the node itself."""
    if node.op in ("mul", "div"):
        return [factor for arg in node.args for factor in factors_of(arg)]
    return [node]


def is_tower(node: Node) -> bool:
    """Whether a tree is a positive number, or powers of positive numbers, however large."""
    if node.op == "number":
        return node.name.strip("0.") != ""
    return node.op == "pow" and all(map(is_tower, node.args))


def compared(node: Node) -> Node:
    """An argument of what is compared and not computed, such as a limit of an integral: there, infinity is a name."""
    if node.op == "neg":
        return Node("neg", (compared(node.args[0]),))
    return Node("symbol", name="infinite") if node == Node("symbol", name=INFINITY) else node


def has_kinks(node: Node, name: str) -> bool:
    """Whether a symbol stands in a function that is made of pieces, such as an absolute value."""
    if node.op in _IN_PIECES and name in symbols(node):
        return True
    return any(has_kinks(arg, name) for arg in node.args)


def boundaries(node: Node) -> list[tuple[str, Node]]:
    """The symbols and bounds in the conditions of a function in cases."""
    found = [pair for arg in node.args for pair in boundaries(arg)]
    for condition in node.args[1::2] if node.op == "cases" else ():
        names = [arg.name for arg in condition.args if arg.op == "symbol" and arg.name not in CONSTANTS]
        found += [(name, arg) for name in names for arg in condition.args if not symbols(arg)]
    return found
