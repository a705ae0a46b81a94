"""Parses normalized answers: a closed grammar of LaTeX, with anything else as names without a meaning.

Takes time linear in the text. What a tree is worth is computed in `evaluation`."""

from __future__ import annotations

from functools import lru_cache

from rewards.math_grader.expressions.commands import QUOTIENTS, Commands, beside, multiplied
from rewards.math_grader.expressions.nodes import RELATIONS, Node, Statement
from rewards.math_grader.expressions.tokens import NUMBER, SET_OPERATORS, Unreadable

_PRODUCTS = {"\\cdot", "\\times", "*"}


@lru_cache(maxsize=4096)
def parse(text: str) -> Statement | None:
    """A normalized answer as a statement; None if it is none."""
    try:
        return _Parser(text).whole()
    except Unreadable:
        return None


class _Parser(Commands):
    """Recursive descent over the tokens of one text."""

    def whole(self) -> Statement:
        found = self.statement()
        if self.peek():
            raise Unreadable
        return found

    def statement(self) -> Statement:
        with self.deeper():
            relations, parts = [], [self.sum()]
            if self.peek() in ("\\choose", "\\over"):
                parts = [Node("binom" if self.take() == "\\choose" else "div", (parts[0], self.sum()))]
            while self.peek() in RELATIONS:
                relations.append(self.take())
                parts.append(self.sum())
        return Statement(tuple(relations), tuple(parts))

    def expression(self) -> Node:
        """A statement as one node."""
        found = self.statement()
        if not found.relations:
            return found.parts[0]
        return Node("apply", found.parts, " ".join(found.relations))

    def sum(self) -> Node:
        negative = False
        while self.peek() in ("+", "-"):
            negative ^= self.take() == "-"
        first = self.product()
        terms = [Node("neg", (first,)) if negative else first]
        while self.peek() in ("+", "-", "\\pm", "\\mp") or self.peek() in SET_OPERATORS:
            sign = self.take()
            flip = False
            while self.peek() in ("+", "-"):
                flip ^= self.take() == "-"
            term = self.product()
            term = Node("neg", (term,)) if flip else term
            if sign == "+":
                terms.append(term)
            elif sign == "-":
                terms.append(Node("neg", (term,)))
            else:
                terms = [Node("apply", (_added(terms), term), sign)]
        return _added(terms)

    def product(self) -> Node:
        above, below = [self.power()], []
        while True:
            token = self.peek()
            if token in _PRODUCTS:
                self.take()
                above.append(self.signed())
            elif token == "\\cross":
                self.take()
                while (factor := self.signed()).op == "number":  # `a \\times 2b`
                    above.insert(0, factor)
                above[-1] = _crossed(above[-1], factor)
            elif token in QUOTIENTS:
                self.take()
                below.append(self.signed())
            elif token in ("\\bmod", "\\pmod"):
                self.take()
                above, below = [Node("apply", (_quotient(above, below), self.signed()), "mod")], []
            elif self.starts() and _is_text(above[-1]) and not below:  # words between factors: no product
                above = [Node("apply", (multiplied(above), self.power()), "beside")]
            elif self.starts():
                if NUMBER.fullmatch(token) and not _separates(self.tokens[self.place - 1]):
                    raise Unreadable  # two numbers side by side
                above[-1:] = beside(above[-1], self.power(), mixed=not below)
            else:
                return _quotient(above, below)

    def signed(self) -> Node:
        negative = False
        while self.peek() in ("+", "-"):
            negative ^= self.take() == "-"
        factor = self.power()
        return Node("neg", (factor,)) if negative else factor

    def power(self) -> Node:
        base = self.postfix(self.atom())
        if self.peek() == "^":
            self.take()
            if self.peek() == "\\circ" or (self.peek() == "{" and self.peek(1) == "\\circ" and self.peek(2) == "}"):
                self.place += 1 if self.peek() == "\\circ" else 3
                base = Node("mul", (base, Node("degree")))
                return self.postfix(base)
            if self.peek() in ("\\top", "T") or (self.peek() == "{" and self.peek(1) in ("\\top", "T")):
                self.argument()
                return Node("apply", (base,), "transpose")
            if self.peek() in ("*", "+", "'"):
                return Node("apply", (base,), f"^{self.take()}")
            base = Node("pow", (base, self.exponent()))
        return self.postfix(base)


def _quotient(above: list[Node], below: list[Node]) -> Node:
    return Node("div", (multiplied(above), multiplied(below))) if below else multiplied(above)


def _crossed(left: Node, right: Node) -> Node:
    """The vector product of two factors, which changes its sign with their order."""
    if right.op == "neg":
        return Node("neg", (_crossed(left, right.args[0]),))
    if left == right:
        return Node("number", name="0")
    product = Node("apply", tuple(sorted((left, right), key=repr)), "\\cross")
    return product if product.args[0] == left else Node("neg", (product,))


def _is_text(node: Node) -> bool:
    return node.op == "symbol" and node.name.startswith("text ")


def _added(terms: list[Node]) -> Node:
    return terms[0] if len(terms) == 1 else Node("add", tuple(terms))


def _separates(token: str) -> bool:
    """Whether a number may follow this token as a factor: `(2)3`, `\\sqrt{2}3`, but not `2 3`."""
    return token in (")", "}", "]", "!", "|") or token.isalpha() or token.startswith("\\")
