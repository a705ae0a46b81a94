"""Compares two answers part by part, according to the policy. Calls a `leaf` for what only a parser can decide.

Results are True, False, or None if only a parser can decide. The same rules run twice: with a leaf that always returns
None, which is fast on every input, and in a worker with a leaf that evaluates."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from rewards.math_grader.brackets import split_top, unwrap
from rewards.math_grader.equations import Equations
from rewards.math_grader.normalize import answer_word, canonical, choice_of, choices_of, is_words, labeled_value, number
from rewards.math_grader.real_sets import real_set, same_set
from rewards.math_grader.structure import OR, Piece, Shape, cases_of, certain, is_name, pieces, shape_of
from rewards.math_grader.values import every, some
from rewards.math_grader.vectors import components, coordinates
from rewards.math_grader.wording import names_of, same_class

_YES_OR_NO = re.compile("yes|no|true|false")
_TRUTH = re.compile("yes|no|true|false|[TFYN]")
_DOTS = re.compile(r"\\(?:l|c)?dots|\.{2,}")
_POINT = re.compile(r"[A-Z]\s*(\([^()]*,[^()]*\))")
_SETS = re.compile(
    r"\\(?:cup|cap|setminus|mathbb|mathbf|emptyset|infty|ne|le|ge|in|land|lor)(?![a-zA-Z])|[<>\[\]]|\\\{"
)
_COMPARED = re.compile(r"[<>]|\\(?:[lg]e|ne)(?![a-zA-Z])")
_DISTANCE = re.compile(rf"\|[^|]*[a-z][^|]*\|\s*(?:{_COMPARED.pattern})")
_TOGETHER = re.compile(r"\\land(?![a-zA-Z])|(?<![a-zA-Z])and(?![a-zA-Z])|,")
_VARIABLE = re.compile(r"(?<![\\a-zA-Z{])[a-z](?![a-zA-Z])")
_APPROX = {"\\approx", "\\simeq", "\\doteq"}
MOST_PAIRS = 40
"""Maximum number of list elements with differing spellings that are matched with each other."""

DEEPEST = 10
"""Maximum nesting depth of parts that are compared."""
MOST_CHARS = 50_000
"""Maximum total number of characters compared, over all recursive calls, before an answer counts as different."""


class Comparison(Equations):
    """Compares answers of any shape, with one policy and one leaf."""

    _depth = _left = 0

    def equal(self, gold: str, answer: str) -> bool | None:
        """Whether two normalized answers are the same."""
        if self._depth == 0:
            self._left = MOST_CHARS
        self._left -= len(gold) + len(answer)
        if self._depth >= DEEPEST or self._left < 0:  # unbalanced brackets may seem to contain themselves
            return False
        self._depth += 1
        try:
            return self.whole(gold, answer)
        finally:
            self._depth -= 1

    def whole(self, gold: str, answer: str) -> bool | None:
        keys = canonical(gold), canonical(answer)
        if keys[0] == keys[1] or same_class(*keys):
            return True
        if not answer:
            return False
        names = names_of(gold), names_of(answer)
        if names[0] and names[1] and self.policy.lists == "unordered" and sorted(names[0]) == sorted(names[1]):
            return names[0] == names[1] or not _in_sequence(names[0])
        if _YES_OR_NO.fullmatch(canonical(gold)):
            return answer_word(answer) == canonical(gold)
        choice = self.choice(gold, answer)
        if choice is not None:
            return choice
        labeled = self.labeled(gold, answer)
        if labeled is not None:
            return labeled
        cases = cases_of(gold), cases_of(answer)
        if cases[0] and cases[1]:
            same = self.match(cases[0], cases[1], self.same_case)
            return same or some([same, self.ask(gold, answer)])
        for text, other, ours in ((gold, answer, False), (answer, gold, True)):
            parts = split_top(text, _APPROX)
            if len(parts) > 1 and all(parts):
                same = some(self.equal(other, part) if ours else self.equal(part, other) for part in parts)
                return every([same, self.near(parts)]) if ours else same
        as_sets = self.as_sets(gold, answer)
        if as_sets is not None:
            return as_sets[0]
        same = self.shapes(gold, answer, shape_of(gold), shape_of(answer))
        lists = shape_of(gold, thousands=False), shape_of(answer, thousands=False)
        if same is False and lists[0].kind == lists[1].kind == "list" and shape_of(gold) != lists[0]:
            return self.lists(*lists)  # `100,200` may mean two numbers
        if same is False and (_has_conditions(gold) or _has_conditions(answer)):
            return self.ask(gold, answer)  # an endpoint such as the root of 2 is for `evaluate`
        return same

    def choice(self, gold: str, answer: str) -> bool | None:
        """Compare option letters; None if the gold is not one."""
        right = choice_of(gold, bare=True)
        if right is None:
            return None
        given = choice_of(answer, bare=not self.policy.choices)
        return given == right if given is not None or is_words(answer) else None

    def labeled(self, gold: str, answer: str) -> bool | None:
        """Compare values after option labels, several option letters, and points with a name; None if there is none."""
        letters = choices_of(gold), choices_of(answer)
        if letters[0] and letters[1]:
            return letters[0] == letters[1]
        values = labeled_value(gold), labeled_value(answer)
        if values[0] is not None and values[1] is None:
            own = choice_of(gold, bare=False)
            return own == choice_of(answer, bare=True) or self.equal(values[0], answer)
        if values[1] is not None and values[0] is None:
            return some([self.equal(gold, values[1]), False])
        points = _POINT.fullmatch(gold), _POINT.fullmatch(answer)
        if points[1] and gold.startswith("("):
            return self.equal(gold, points[1].group(1))
        if points[0] and answer.startswith("("):
            return self.equal(points[0].group(1), answer)
        return None

    # --- parts --------------------------------------------------------------------------------------------------------

    def as_sets(self, gold: str, answer: str) -> tuple[bool | None] | None:
        """Compare as sets of real numbers; the result is wrapped in a tuple. None if they are not such sets."""
        left, right = pieces(gold), pieces(answer)
        if left is None or right is None:
            return self.computed_sets(gold, answer)
        if not (certain(left, gold) or certain(right, answer)):
            return None
        named = [found[0].name is not None for found in (left, right)]
        if self.policy.inequalities == "strict" and named[0] != named[1]:
            return (False,)
        names = {unwrap(piece.name) for piece in (*left, *right) if piece.name}
        if all(named) and len(names) > 1:
            return (self.ask(gold, answer),)  # `a > b` is `b < a`
        same = self.match(left, right, self.same_piece)
        if same is False and len(left) != len(right):  # the union of (0,1] and [1,2) is (0,2)
            return self.computed_sets(gold, answer) or (False,)
        return (same,)

    def computed_sets(self, gold: str, answer: str) -> tuple[bool | None] | None:
        """Compare sets that have to be computed: intersections, differences. None if they are no sets, or if an
        endpoint is no number."""
        both = gold, answer
        if not all(map(_SETS.search, both)) and not any(map(_has_conditions, both)):
            return None
        names = [set() if text.startswith("\\{") else set(_VARIABLE.findall(text)) for text in both]
        if all(names) and not names[0] & names[1]:
            return (False,)
        left, right = real_set(gold, self.evaluate), real_set(answer, self.evaluate)
        return None if left is None or right is None else (same_set(left, right),)

    def same_piece(self, gold: Piece, answer: Piece) -> bool | None:
        if gold.brackets != answer.brackets:
            return False
        return every([self.equal(gold.left, answer.left), self.equal(gold.right, answer.right)])

    def same_case(self, gold: tuple[str, str], answer: tuple[str, str]) -> bool | None:
        return every(map(self.equal, gold, answer))

    def shapes(self, gold: str, answer: str, left: Shape, right: Shape) -> bool | None:
        kinds, items = {left.kind, right.kind}, (left.items, right.items)
        if kinds == {"single"}:
            return self.single(left.items[0], right.items[0])
        if kinds == {"matrix"}:
            return left.brackets == right.brackets and self.in_order(*items)
        if kinds == {"tuple"}:
            return left.brackets == right.brackets and self.in_order(*items)
        if kinds in ({"list"}, {"set", "list"}, {"set"}):
            return self.lists(left, right)
        if kinds == {"tuple", "list"}:  # `1, 2, 3` for `(1, 2, 3)`
            solutions = _are_solutions(*((gold, left) if left.kind == "list" else (answer, right)))
            if left.brackets + right.brackets != "()" or solutions:
                return False
            return self.in_order(*(coordinates(part) for part in items))
        if kinds == {"tuple", "set"}:
            return self.policy.sets == "lenient" and self.match(*items, self.equal)
        if kinds == {"tuple", "matrix"}:
            vector = len(items[0]) == len(items[1]) and self.policy.vectors == "tuple"
            return vector and self.in_order(*items)
        return self.mixed(gold, answer, left, right)

    def mixed(self, gold: str, answer: str, left: Shape, right: Shape) -> bool | None:
        """Compare an answer that has parts with one that has none."""
        parts, whole = (left, answer) if right.kind == "single" else (right, gold)
        equation = split_top(whole, {"="})
        multiple = equation[0][:1].isdigit()  # `2A = ...`
        if len(equation) > 1 and not multiple and (is_name(equation[0]) or whole is answer):
            rest = equation[-1]
            return self.equal(gold, rest) if whole is answer else self.equal(rest, answer)
        vector = components(whole, len(parts.items)) if parts.kind in ("tuple", "matrix") else None
        if vector is not None and parts.brackets in ("()", "1", str(len(vector))):
            return self.in_order(*((parts.items, vector) if whole is answer else (vector, parts.items)))
        if left.kind == "single" and right.kind == "list":  # one value in several forms: `5/2, 2.5`
            return every(self.equal(gold, item) for item in right.items)
        if parts.kind == "set" and len(parts.items) == 1 and self.policy.singletons and not _is_set(parts.items[0]):
            return self.single(left.items[0], right.items[0])
        if re.search(r"\\(?:cap|cup|setminus|mathbb|emptyset|varnothing|mid|begin|times)(?![a-zA-Z])|=", whole):
            return self.ask(gold, answer)
        return False

    def lists(self, left: Shape, right: Shape) -> bool | None:
        """Compare sets and bare lists. If every part is `name = value`, parts with equal names are compared."""
        items = [[split_top(item, {"="}) for item in shape.items] for shape in (left, right)]
        if all(len(item) == 2 and is_name(item[0]) for side in items for item in side):
            names = [[canonical(item[0]) for item in side] for side in items]
            if sorted(names[0]) == sorted(names[1]) and len(set(names[0])) == len(names[0]):
                given = dict(zip(names[1], items[1], strict=True))
                return every(self.equal(item[1], given[name][1]) for name, item in zip(names[0], items[0], strict=True))
        if any(_DOTS.fullmatch(item) for item in left.items) and any(_DOTS.fullmatch(item) for item in right.items):
            return self.sequences(left.items, right.items)
        if left.kind == right.kind == "list" and (self.policy.lists == "ordered" or _in_sequence(left.items)):
            return self.in_order(left.items, right.items)
        bare = tuple(left.items), tuple(right.items)
        if left.kind == right.kind == "set":
            bare = tuple(dict.fromkeys(left.items)), tuple(dict.fromkeys(right.items))
        elif len(dict.fromkeys(left.items)) == len(left.items):  # ignore repeated solutions in the answer
            bare = left.items, tuple({canonical(item): item for item in right.items}.values())
        return self.match(*bare, self.element if "set" in (left.kind, right.kind) else self.equal)

    def element(self, gold: str, answer: str) -> bool | None:
        """Whether two elements of sets are the same. A set in a set is no number: {{1}} is not {1}."""
        return _is_set(gold) == _is_set(answer) and self.equal(gold, answer)

    def sequences(self, gold: Sequence[str], answer: Sequence[str]) -> bool | None:
        """Compare lists with dots, such as 1, 2, ..., n: the terms that both show, and a further term only where the
        first two of the shorter one say what it is."""
        heads, tails = [], []
        for items in (gold, answer):
            place = next(index for index, item in enumerate(items) if _DOTS.fullmatch(item))
            heads.append(items[:place])
            tails.append(items[place + 1 :])
        if len(heads[0]) != len(heads[1]):
            short, long = sorted(heads, key=len)
            terms = [number(item) for item in long]
            steps = {one[0] - other[0] for one, other in zip(terms[1:], terms, strict=False) if one and other}
            if len(short) < 2 or None in terms or len(steps) != 1:
                return False
            heads = [head[: len(short)] for head in heads]
        return every([self.in_order(*heads), self.in_order(*tails)])

    def in_order(self, gold: Sequence[str], answer: Sequence[str]) -> bool | None:
        if len(gold) != len(answer):
            return False
        return every(self.equal(*pair) for pair in zip(gold, answer, strict=True))

    def match(self, gold: Sequence, answer: Sequence, same: Callable[..., bool | None]) -> bool | None:
        """Whether the parts can be matched one to one."""
        if len(gold) != len(answer):
            return False
        left, right = list(gold), list(answer)
        for part in gold:
            if part in right:
                left.remove(part)
                right.remove(part)
        if len(left) > MOST_PAIRS:
            return False
        table = [[same(one, other) for other in right] for one in left]
        if _pairing([[value is True for value in row] for row in table]):
            return True
        return None if _pairing([[value is not False for value in row] for row in table]) else False


def _in_sequence(items: Sequence[str]) -> bool:
    """Whether the order of a list matters: one of truth values, or in which a value occurs twice."""
    keys = [canonical(item) for item in items]
    return len(set(keys)) < len(keys) or all(map(_TRUTH.fullmatch, keys))


def _are_solutions(text: str, shape: Shape) -> bool:
    """Whether a list holds several values of one unknown, as in `x = 1 or x = 4`, and is no point."""
    sides = [split_top(item, {"="}) for item in shape.items]
    names = [canonical(side[0]) for side in sides if len(side) == 2]
    return bool(OR.search(text)) or len(set(names)) < len(names)


def _has_conditions(text: str) -> bool:
    """Whether an answer is a condition on a distance, `|x| < 1`, or has two inequalities that may both hold."""
    found = [match.span() for match in _COMPARED.finditer(text)]
    together = len(found) > 1 and _TOGETHER.search(text, found[0][1], found[-1][0])
    return bool(together or _DISTANCE.search(text))


def _is_set(text: str) -> bool:
    return text.startswith("\\{") or text.strip() == "\\emptyset"


def _pairing(allowed: list[list[bool]]) -> bool:
    """Whether the bipartite graph of allowed (row, column) pairs has a perfect matching (by augmenting paths)."""
    partner: dict[int, int] = {}

    def place(row: int, tried: set[int]) -> bool:
        for column, fits in enumerate(allowed[row]):
            if fits and column not in tried:
                tried.add(column)
                if column not in partner or place(partner[column], tried):
                    partner[column] = row
                    return True
        return False

    return all(place(row, set()) for row in range(len(allowed)))
