"""Commands: fractions, roots, functions, sums, matrices; unknown ones are names or unknown functions."""

from __future__ import annotations

import re
from abc import abstractmethod

from rewards.math_grader.expressions.atoms import CLOSING, Atoms
from rewards.math_grader.expressions.nodes import RELATIONS, Node
from rewards.math_grader.expressions.tokens import ENDS, NUMBER, Unreadable

FUNCTIONS = {
    "sin", "cos", "tan", "cot", "sec", "csc", "arcsin", "arccos", "arctan", "sinh", "cosh", "tanh", "coth",
    "arsinh", "arcosh", "artanh", "ln", "lg", "log", "exp", "cis",
}  # fmt: skip
_ALIASES = {
    "tg": "tan", "ctg": "cot", "cosec": "csc", "arctg": "arctan", "asin": "arcsin", "acos": "arccos", "atan": "arctan",
    "asinh": "arsinh", "acosh": "arcosh", "atanh": "artanh", "arcsinh": "arsinh", "arccosh": "arcosh",
    "arctanh": "artanh", "sh": "sinh", "ch": "cosh", "th": "tanh",
}  # fmt: skip
_ANGLES = {"sin", "cos", "tan", "cot", "sec", "csc", "sinh", "cosh", "tanh", "cis"}
_INVERSES = {
    "sin": "arcsin", "cos": "arccos", "tan": "arctan", "sinh": "arsinh", "cosh": "arcosh", "tanh": "artanh",
}  # fmt: skip
_NAMED = {*FUNCTIONS, *_ALIASES, "min", "max", "gcd", "lcm"}
"""What `\\operatorname` may name; other names are symbols."""
_BINDERS = {"\\sum": "sum", "\\prod": "prod", "\\int": "int", "\\lim": "lim", "\\iint": "int", "\\oint": "int"}
_TEXTS = {"\\text", "\\mbox", "\\mathrm", "\\textrm", "\\operatorname", "\\textbf", "\\mathbf", "\\textit"}
QUOTIENTS = {"/", "\\div"}
_MARKS = {",", ".", ";"}
_DERIVATIVE = re.compile(r"(?:d|\\partial)\s*(?:\^\s*\{?\d\}?)?\s*\\?[a-zA-Z]*(?:\s*\^\s*\{?\d\}?)?")


class Commands(Atoms):
    """Reads what follows a command. `power` and `product` are what the grammar builds on it."""

    @abstractmethod
    def power(self) -> Node: ...

    @abstractmethod
    def product(self) -> Node: ...

    def command(self, token: str) -> Node:
        name = _ALIASES.get(token[1:], token[1:])
        if name == "frac":
            derivative = self.derivative()
            if derivative:
                return self.applied(derivative)
            return Node("div", (self.argument(), self.argument()), "frac")
        if name == "binom":
            return Node("binom", (self.argument(), self.argument()))
        if name == "sqrt":
            index = Node("number", name="2")
            if self.peek() == "[":
                self.take()
                index = self.expression()
                self.take("]")
            return Node("root", (self.argument(), index))
        if name in FUNCTIONS:
            return self.function(name)
        if token in _BINDERS:
            return self.binder(_BINDERS[token])
        if name in ("min", "max") and self.peek() in ("(", "\\{"):
            return Node(name, tuple(self.items(CLOSING[self.take()])))
        if name in ("gcd", "lcm", "mathrm{gcd}") and self.peek() == "(":
            self.take()
            return Node("apply", tuple(self.items((")",))), name)
        if token in _TEXTS:
            named = self.named(token)
            if named:
                return self.command(named)
            return Node("symbol", name=f"text {self.raw()}")
        if token == "\\begin":
            return self.table()
        if token == "\\not" or token in RELATIONS or token in ENDS:
            raise Unreadable
        if self.peek() == "{":
            return Node("apply", (self.argument(),), token)
        return self.applied(Node("symbol", name=token))

    def named(self, token: str) -> str | None:
        """The command that `\\operatorname{atan}` stands for, or `\\mathrm{atan}(`; for others None, with nothing read:
        `\\mathrm{min}` without a bracket is minutes."""
        start = self.place
        if token in ("\\operatorname", "\\mathrm") and self.peek() == "{":
            name = self.raw()
            if name in _NAMED and (token == "\\operatorname" or self.peek() == "("):
                return f"\\{name}"
        self.place = start
        return None

    def function(self, name: str) -> Node:
        exponent = base = None
        while self.peek() in ("^", "_"):
            if self.take() == "^":
                exponent = self.exponent()
            else:
                base = self.argument()
        if exponent == Node("neg", (Node("number", name="1"),)) and name in _INVERSES:
            name, exponent = _INVERSES[name], None
        inner = self.function_argument(name)
        node = Node(name, (inner,) if base is None else (inner, base))
        return Node("pow", (node, exponent)) if exponent else node

    def function_argument(self, name: str) -> Node:
        """A bracket, or the factors that follow up to the next function, sum or relation."""
        with self.deeper():
            negative = self.peek() == "-"
            if negative:
                self.take()
            if self.peek() in ("(", "[", "{", "|"):
                found = self.postfix(self.atom())
                if self.peek() == "^" and self.peek(1) == "{" and self.peek(2) == "\\circ":
                    self.place += 4
                    found = Node("mul", (found, Node("degree")))
            else:
                factors = [self.power()]
                while self.starts() and self.peek()[1:] not in FUNCTIONS and self.peek() not in ("(", "["):
                    factors[-1:] = beside(factors[-1], self.power())
                found = multiplied(factors)
                if self.peek() in QUOTIENTS and name in _ANGLES and NUMBER.fullmatch(self.peek(1) or "-"):
                    self.take()  # `\\sin x/2`, with a number below
                    found = Node("div", (found, self.power()))
        return Node("neg", (found,)) if negative else found

    def binder(self, name: str) -> Node:
        """A sum, product, integral or limit: its limits, and the factors that follow."""
        lower = upper = Node("symbol", name="none")
        while self.peek() in ("^", "_"):
            if self.take() == "^":
                upper = self.exponent()
            else:
                lower = self.argument()
        body = self.product()
        bound = lower.op == "apply" and lower.name == "=" and lower.args[0].op == "symbol"
        if name in ("sum", "prod") and bound:
            return Node(name, (lower.args[1], upper, body), lower.args[0].name)
        return Node("apply", (lower, upper, body), name)

    def table(self) -> Node:
        """A matrix, or an array of anything."""
        name = self.raw()
        if name.startswith("array") and self.peek() == "{":
            self.raw()
        rows: list[list[Node]] = [[]]
        while self.peek() != "\\end":
            token = self.peek()
            if token in ("&", "\\\\"):
                self.take()
                rows += [[]] if token == "\\\\" else []
            elif name == "cases" and token in _MARKS and self.peek(1) in ("&", "\\\\", "\\end"):
                self.take()
            elif name == "cases" and len(rows[-1]) == 1:
                rows[-1].append(self.condition())
            else:
                rows[-1].append(self.expression())
        self.take()
        if self.raw() != name:
            raise Unreadable
        rows = [row for row in rows if row]
        if name == "cases" and all(len(row) == 2 for row in rows):
            return Node("cases", tuple(entry for row in rows for entry in row))
        kind = name if name in ("vmatrix", "cases") else "matrix"
        return Node("apply", tuple(entry for row in rows for entry in row), f"{kind} {len(rows)}")

    def condition(self) -> Node:
        """The condition of a case, after "if" or without it."""
        start = self.place
        if self.peek() in _TEXTS:
            self.take()
            word = self.raw()
            if word in ("otherwise", "else"):
                return Node("otherwise")
            if word not in ("if", "for", "when", "where"):
                self.place = start
        return self.expression()

    def derivative(self) -> Node | None:
        """`\\frac{dy}{dx}` as a symbol; None if the fraction is no derivative."""
        start = self.place
        texts = []
        for _ in range(2):
            if self.peek() != "{":
                break
            texts.append(self.raw())
        if len(texts) == 2 and all(
            re.match(r"d(?![a-zA-Z]{2})|\\partial", text) and _DERIVATIVE.fullmatch(text) for text in texts
        ):
            if texts[1] not in ("d",):
                return Node("symbol", name="/".join(re.sub(r"[\s{}]", "", text) for text in texts))
        self.place = start
        return None


def beside(left: Node, right: Node, *, mixed: bool = True) -> list[Node]:
    """Two factors side by side, or a mixed number."""
    integer = left.op == "number" and "." not in left.name
    if mixed and integer and right.name == "frac" and all(arg.op == "number" for arg in right.args):
        return [Node("add", (left, right))]
    return [left, right]


def multiplied(factors: list[Node]) -> Node:
    return factors[0] if len(factors) == 1 else Node("mul", tuple(factors))
