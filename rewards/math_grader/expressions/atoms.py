"""What a term is made of: numbers, letters, brackets, arguments, and what stands behind them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection

from rewards.math_grader.expressions.nodes import Node
from rewards.math_grader.expressions.tokens import MAX_NESTING, Tokens, Unreadable

CLOSING: dict[str, Collection[str]] = {
    "(": ")]",
    "[": "])",
    "]": "[",
    "\\{": ("\\}",),
    "\\lfloor": ("\\rfloor",),
    "\\lceil": ("\\rceil",),
}
_NAMED = {"\\lfloor": "floor", "\\lceil": "ceil"}
_APPLIED = {"f", "g"}
"""Letters that name functions: `f(x)` is no product."""
_DOTS = {"\\ldots", "\\cdots", "\\dots", "\\vdots"}


class Atoms(Tokens, ABC):
    """Reads one atom. `expression` and `command` are what the grammar builds on it."""

    @abstractmethod
    def expression(self) -> Node: ...

    @abstractmethod
    def command(self, token: str) -> Node: ...

    def exponent(self) -> Node:
        if self.peek() == "-":
            self.take()
            with self.deeper():
                return Node("neg", (self.exponent(),))
        if self.peek() == "{":
            return self.argument()
        with self.deeper():
            base = self.postfix(self.atom())
            if self.peek() == "^":  # `2^3^4` in plain text
                self.take()
                base = Node("pow", (base, self.exponent()))
        return base

    def postfix(self, node: Node) -> Node:
        for _ in range(MAX_NESTING):
            token = self.peek()
            if token == "!":
                marks = self.take()
                while self.peek() == "!":
                    marks += self.take()
                node = Node("factorial", (node,)) if marks == "!" else Node("apply", (node,), marks)
            elif token == "%":
                self.take()
                node = Node("div", (node, Node("number", name="100")))
            elif token == "'" and node.op == "symbol":
                self.take()
                node = self.applied(Node("symbol", name=node.name + "'"))
            elif token == "_":
                self.take()
                node = self.subscripted(node)
            else:
                return node
        raise Unreadable

    def subscripted(self, node: Node) -> Node:
        index = self.argument() if self.peek() == "{" else self.exponent()
        label = _label(index)
        if node.op == "symbol" and label is not None:
            return self.applied(Node("symbol", name=f"{node.name}_{label}"))
        return Node("apply", (node, index), "_")

    def atom(self) -> Node:
        token = self.take()
        if token[0].isdigit() or (token[0] == "." and token != "..."):
            return Node("number", name=token.replace(",", ""))
        if token in _DOTS or token == "...":
            return Node("symbol", name="\\dots")
        if token.isascii() and token.isalpha():
            return self.letter(token)
        if token == "{":
            self.place -= 1
            return self.argument()
        if token in CLOSING:
            return self.bracket(token)
        if token == "|":
            self.bars += 1
            inner = self.expression()
            self.bars -= 1
            self.take("|")
            return Node("abs", (inner,))
        if token.startswith("\\") and token[1:].isalpha():
            return self.command(token)
        raise Unreadable

    def letter(self, letter: str) -> Node:
        run = letter
        while run.isupper() and len(self.peek()) == 1 and self.peek().isascii() and self.peek().isupper():
            run += self.take()
        if len(run) > 2:  # three points name an angle or a triangle
            return Node("symbol", name=min(run, run[::-1]))
        self.place -= len(run) - 1
        if letter in ("e", "i") and self.peek() != "_":
            return Node("symbol", name=letter)
        return self.applied(Node("symbol", name=letter))

    def applied(self, node: Node) -> Node:
        """A function with its arguments, where the name is one of a function, or has several arguments."""
        if self.peek() != "(" or node.name == "e":
            return node
        base = node.name.rstrip("'").split("_")[0]
        start = self.place
        self.take()
        args = self.items((")",))
        if base in _APPLIED or len(args) > 1 or "'" in node.name:
            return Node("apply", tuple(args), node.name)
        self.place = start
        return node

    def bracket(self, opening: str) -> Node:
        bars, self.bars = self.bars, 0
        args = self.items(CLOSING[opening])
        self.bars = bars
        closing = self.tokens[self.place - 1]
        if opening in _NAMED:
            return Node(_NAMED[opening], tuple(args))
        if opening + closing in ("()", "[]") and len(args) == 1:
            return args[0]
        return Node("apply", tuple(args), opening + closing)

    def items(self, closings: Collection[str]) -> list[Node]:
        """What stands between commas, up to a closing bracket, which is taken."""
        found: list[Node] = []
        if self.peek() in closings and self.peek():
            self.take()
            return found
        while True:
            found.append(self.expression())
            token = self.take()
            if token in closings:
                return found
            if token not in (",", ";"):
                raise Unreadable

    def argument(self) -> Node:
        """A braced argument, or the next token."""
        if self.peek() != "{":
            with self.deeper():
                found = self.atom()
            return found
        self.take()
        bars, self.bars = self.bars, 0
        found = self.expression()
        if self.peek() in (",", ";"):
            self.take()
            found = Node("apply", (found, *self.items(("}",))), ",")
            self.place -= 1
        self.take("}")
        self.bars = bars
        return found


def _label(index: Node) -> str | None:
    """A subscript that is part of a name: digits, letters, words. None for one that is computed, as in `a_{n+1}`."""
    if index.op in ("number", "symbol"):
        return index.name
    if index.op == "mul":
        labels = [_label(arg) for arg in index.args]
        return None if None in labels else "".join(label or "" for label in labels)
    return None
