"""The reward `code`: tests may use the program's own classes, objects and errors, which never decide for themselves."""

import pytest

from rewards.code_grader.forms import read_tests
from tests.references.code_cheats import LIVE_CHEATS, LIVE_TESTS
from tests.references.sandboxes import code_reward

QUEUE = """
class Empty(LookupError):
    def __init__(self, name): super().__init__(name); self.name = name
class Queue:
    kind = "fifo"
    def __init__(self, *items): self.items = list(items)
    def put(self, item): self.items.append(item); return self
    def get(self):
        if not self.items: raise Empty("q")
        return self.items.pop(0)
    def __len__(self): return len(self.items)
    def __iter__(self): return iter(self.items)
    def __contains__(self, item): return item in self.items
    def __getitem__(self, index): return self.items[index]
    def __eq__(self, other): return self.items == other.items
    def __enter__(self): return self
    def __exit__(self, *error): self.items.clear()
    @property
    def last(self): return self.items[-1]
    @classmethod
    def of(cls, text): return cls(*text)
class Vector:
    def __init__(self, x, y): self.x, self.y = x, y
    def __add__(self, other): return Vector(self.x + other.x, self.y + other.y)
    def __mul__(self, k): return Vector(self.x * k, self.y * k)
    __rmul__ = __mul__
    def __eq__(self, other): return (self.x, self.y) == (other.x, other.y)
    def __lt__(self, other): return self.x < other.x
    def __abs__(self): return (self.x ** 2 + self.y ** 2) ** 0.5
    def __neg__(self): return Vector(-self.x, -self.y)
    def __repr__(self): return f"Vector({self.x}, {self.y})"
"""
WITH_CLASSES = [
    "q = Queue()\nq.put(3)\nq.put(4)\nassert q.get() == 3\nassert len(q) == 1 and 4 in q and 5 not in q and q[0] == 4",
    "assert Queue(1, 2).items == [1, 2] and list(Queue(1, 2)) == [1, 2] and Queue.kind == 'fifo'",
    "q = Queue().put(1).put(2)\nassert q.last == 2 and [x for x in q] == [1, 2] and not Queue() and q",
    "assert Queue(1) == Queue(1) and Queue(1) != Queue(2) and isinstance(Queue.of('ab'), Queue)",
    "q = Queue(1)\nwith q as same:\n    assert len(same) == 1\nassert len(q) == 0",
    "try:\n    Queue().get()\n    assert False\nexcept Empty as error:\n"
    "    assert error.name == 'q' and str(error) == 'q'",
    "import pytest\nwith pytest.raises(LookupError):\n    Queue().get()",
    "import pytest\nwith pytest.raises(Empty, match='q') as info:\n    Queue().get()\nassert info.value.name == 'q'",
    "v = Vector(1, 2) + Vector(2, 2)\nassert (v.x, v.y) == (3, 4) and abs(v) == 5.0 and v == Vector(3, 4)",
    "assert Vector(1, 2) * 2 == Vector(2, 4) == 2 * Vector(1, 2) and (-Vector(1, 2)).x == -1",
    "assert sorted([Vector(2, 0), Vector(1, 0)])[0].x == 1 and repr(Vector(1, 2)) == 'Vector(1, 2)'",
    "v = Vector(1, 2)\nv.x = 7\nassert v.x == 7 and hasattr(v, 'y') and not hasattr(v, 'z')",
    "assert type(Vector(1, 2)).__name__ == 'Vector' and f'{Vector(1, 2)}' == 'Vector(1, 2)'",
]
FUNCTIONS = {
    "returned functions": (
        "def adder(n):\n    return lambda x: x + n",
        ["assert adder(2)(3) == 5", "f = adder(1)\nassert f(f(1)) == 3", "assert [*map(adder(1), [1, 2])] == [2, 3]"],
        "def adder(n):\n    return lambda x: x",
    ),
    "functions of the tests": (
        "def twice(f, x):\n    return f(f(x))",
        ["assert twice(lambda x: x + 1, 3) == 5",
         "assert twice(str.upper, 'ab') == 'AB'", "assert twice(lambda s: s + '!', 'a') == 'a!!'", "import math\n"
        "assert twice(math.sqrt, 16) == 2"],
        "def twice(f, x):\n    return x",
    ),
    "functions that call each other": (
        "def both(f):\n    return lambda x: f(x) + 1",
        ["assert both(both(lambda x: 2 * x))(5) == 12", "seen = []\n"
        "assert both(lambda x: seen.append(x) or 1)(9) == 2 and seen == [9]"],
        "def both(f):\n    return lambda x: 1",
    ),
    "generators": (
        "def count(n):\n    while True:\n        yield n\n        n += 1",
        ["g = count(5)\nassert next(g) == 5 and next(g) == 6", "from itertools import islice\n"
        "assert [*islice(count(0), 50)] == [*range(50)]"],
        "def count(n):\n    while True:\n        yield n",
    ),
    "coroutines": (
        "import asyncio\nasync def later(x):\n    await asyncio.sleep(0)\n    return 2 * x",
        ["import asyncio\nassert asyncio.run(later(2)) == 4", "import asyncio\nasync def test_it():\n"
        "    assert await later(3) == 6"],
        "async def later(x):\n    return x",
    ),
    "records": (
        "from collections import namedtuple\nfrom dataclasses import dataclass\nPair = namedtuple('Pair', 'a b')\n"
        "@dataclass\nclass Row:\n    a: int\n    b: int = 2\ndef pair(x): return Pair(x, 2)\ndef row(x): return Row(x)",
        ["assert pair(1).a == 1 and pair(1) == (1, 2)", "assert row(1).b == 2 and row(1) == Row(1)"],
        "class Row:\n    a = b = 0\n    def __init__(self, *v): pass\npair = row = Row",
    ),
    "enumerations": (
        "from enum import Enum, IntEnum\nclass Color(Enum):\n    RED = 1\nclass Level(IntEnum):\n    LOW = 3\n"
        "def pick(x): return Color.RED\ndef level(): return Level.LOW",
        ["assert pick(0) == Color.RED and pick(0).value == 1", "assert level() == 3 and level().name == 'LOW'"],
        "from enum import Enum\nclass Color(Enum):\n    RED = 2\ndef pick(x): return 1\ndef level(): return 4",
    ),
    "classes that tests only compare with": (
        "class A: pass\nclass B(A): pass\ndef names(): return ['a']",
        ["assert isinstance(B(), A)", "assert issubclass(B, A)", "b = B()\nassert isinstance(b, (int, A))",
         "assert isinstance(names(), List) and isinstance(names(), Iterable) and len(names())"],
        "class A: pass\nclass B: pass\ndef names(): return 1",
    ),
    "library containers": (
        "from collections import Counter, defaultdict, OrderedDict\nimport datetime\n"
        "def tally(t): return Counter(t)\ndef index(): return defaultdict(list)\n"
        "def day(): return datetime.date(2024, 2, 29)",
        ["assert tally('aab').most_common(1) == [('a', 2)] and tally('')['z'] == 0", "d = index()\n"
        "d[1].append(2)\nassert d == {1: [2]}",
         "import datetime\nassert day() == datetime.date(2024, 2, 29)"],
        "def tally(t): return {}\nindex = day = dict",
    ),
    "errors of the library": (
        "import json, decimal\nclass Mine(json.JSONDecodeError): pass\ndef load(t): return json.loads(t)\n"
        "def number(t): return decimal.Decimal(t)",
        ["import json\ntry:\n    load('{')\n    assert False\nexcept json.JSONDecodeError as e:\n    assert e.pos == 1",
         "from decimal import InvalidOperation\nimport pytest\nwith pytest.raises(InvalidOperation):\n    number('x')"],
        "def load(t): return 0\ndef number(t): raise ValueError",
    ),
    "constants": ("LIMIT = 10\nTABLE = {'a': [1]}\n"
        "def f(): return LIMIT", ["assert LIMIT == 10 and TABLE['a'] == [1]", "assert f() == LIMIT"],
                  "def f(): return 3"),
    "objects that go back": (
        "class Node:\n    def __init__(self, v): self.v = v\ndef make(v): return Node(v)\ndef value(n): return n.v\n"
        "def grow(n, k): n.v += k",
        ["assert value(make(3)) == 3", "n = make(3)\ngrow(n, 4)\nassert value(n) == 7"],
        "def make(v): return v\ndef value(n): return 0\ndef grow(n, k): pass",
    ),
    "arguments in place": (
        "def shift(a):\n    a.append(a.pop(0))\n    return len(a)\ndef clear(d, k): return d.pop(k)",
        ["a = [1, 2]\nassert shift(a) == 2 and a == [2, 1]", "d = {'a': [1], 'b': 2}\n"
        "assert clear(d, 'a') == [1]\nassert d == {'b': 2}",
         "rows = [[1, 2], [3, 4]]\nn = shift(rows[0])\nassert rows == [[2, 1], [3, 4]] and n == 2"],
        "def shift(a):\n    return len(a)\ndef clear(d, k): return d[k]",
    ),
    "the same object": (
        "def order(a):\n    a.sort()\n    return a\ndef pick(rows): return rows[0]",
        ["a = [2, 1]\nassert order(a) is a and a == [1, 2]", "rows = [[1], [2]]\npick(rows).append(9)\n"
        "assert rows == [[1, 9], [2]]"],
        "def order(a): return sorted(a)\ndef pick(rows): return list(rows[0])",
    ),
}  # fmt: skip
STYLES = {
    "functions that nobody calls": "def test_one():\n    assert triple(1) == 3\ndef test_two():\n"
        "    assert triple(2) == 6",
    "a called function": "def test_one():\n    assert triple(1) == 3\ntest_one()",
    "parametrized": "import pytest\n@pytest.mark.parametrize('x, y', [(1, 3), (2, 6)])\ndef test(x, y):\n"
        "    assert triple(x) == y",
    "pytest class": "class TestTriple:\n    def test_it(self):\n        assert triple(1) == 3",
    "unittest": "import unittest\nclass T(unittest.TestCase):\n    def setUp(self):\n        self.x = 2\n"
        "    def test_it(self):\n"
    "        self.assertEqual(triple(self.x), 6)\n        with self.assertRaises(TypeError):\n"
        "            triple(None)\n"
    "if __name__ == '__main__':\n    unittest.main()",
    "import of the program": "from solution import triple\ndef test_it():\n    assert triple(1) == 3",
    "main guard": "def run():\n    assert triple(1) == 3\nif __name__ == '__main__':\n    run()",
    "approx": "import pytest\ndef test_it():\n    assert triple(0.1) == pytest.approx(0.3)",
}  # fmt: skip


@pytest.mark.parametrize("test", WITH_CLASSES)
def test_classes(verdict, test):
    assert verdict(QUEUE, [test]).value == 1.0, verdict(QUEUE, [test])
    wrong = QUEUE.replace("pop(0)", "pop() + 1").replace("self.items = list(items)", "self.items = [0, *items]")
    wrong = wrong.replace("self.x, self.y = x, y", "self.x, self.y = x + 1, 0").replace("LookupError", "Exception")
    wrong = wrong.replace('Empty("q")', 'RuntimeError("p")').replace('"fifo"', "None").replace("Vector(-", "Vector(")
    wrong = wrong.replace("return cls(*text)", "return 0")
    wrong = wrong.replace("class Vector", "class Other").replace("self.items.clear()", "pass")
    assert verdict(wrong, [test]).value == 0.0


@pytest.mark.parametrize("kind", FUNCTIONS)
def test_values_that_are_more_than_data(verdict, kind):
    good, tests, bad = FUNCTIONS[kind]
    assert verdict(good, tests).value == 1.0, verdict(good, tests)
    assert verdict(bad, tests).value == 0.0, verdict(bad, tests)


@pytest.mark.parametrize("style", STYLES)
def test_styles_of_tests(verdict, style):
    good = "def triple(x):\n    if x is None: raise TypeError\n    return 3 * x"
    for tests in (STYLES[style], [STYLES[style]]):
        assert verdict(good, tests).value == 1.0, verdict(good, tests)
        assert verdict("def triple(x): return 5", tests).value == 0.0


def test_each_test_function_counts():
    assert read_tests({"tests": STYLES["functions that nobody calls"]}).count == 2


@pytest.mark.parametrize(
    "tests",
    ["import numpy as np\nassert triple(np.array([1])) == 3", "def test_it(tmp_path):\n    assert triple(1) == 3"],
)
def test_what_the_judge_cannot_provide_is_said(verdict, tests):
    assert verdict("def triple(x): return 3 * x", tests).status == "gold_unparsable"


MIDDLE = "def middle(a, b):\n    return {result}\n"
POINT = "from dataclasses import dataclass\n@dataclass\nclass Point:\n    x: int\n"


@pytest.mark.parametrize(
    ("program", "right"),
    [
        (POINT + MIDDLE.format(result="Point((a.x + b.x) // 2)"), True),
        (POINT + MIDDLE.format(result="Point(a.x + b.x)"), False),
        (POINT + MIDDLE.format(result="2"), False),
        (POINT + "    def __eq__(self, other): return True\n" + MIDDLE.format(result="Point(0)"), False),
        (POINT + MIDDLE.format(result="type('Q', (Point,), {'__eq__': lambda *v: True})(0)"), False),
    ],
)
def test_a_function_of_objects_is_compared_with_an_object_that_the_tests_make(verdict, program, right):
    for test in (
        "assert middle(Point(0), Point(4)) == Point(2)",
        "p = middle(Point(0), Point(4))\nassert p == Point(2)",
    ):
        result = verdict(program, [test])
        assert (result.value, result.status) == (float(right), "correct" if right else "wrong"), (test, result)


@pytest.mark.parametrize("name", LIVE_CHEATS)
def test_no_object_passes_tests_that_expect_data(verdict, name):
    result = verdict(LIVE_CHEATS[name], LIVE_TESTS)
    assert (result.value, result.status) == (0.0, "wrong"), result


@pytest.mark.parametrize(
    ("test", "program"),
    [
        ("assert P(1) == P(1) and P(1).x == 1", "class P:\n    def __init__(self, x): self.x = 1\n"
        "    __eq__ = lambda *v: True"),
        ("assert C().mean([1, 2]).real - 1.5 == 0", "class C:\n    real = property(lambda s: s)\n"
        "    mean = lambda s, v: s\n"
         "    __sub__ = lambda *v: 0"),
        ("c = C()\nassert abs(c.mean([1, 2]) - 1.5) < 1e-9 and c.n == 2",
         "class C:\n    n = 2\n    mean = lambda s, v: s\n    __sub__ = lambda *v: 0"),
        ("assert Calc(2) - 4 == 0", "class Calc:\n    def __init__(self, x): pass\n    __sub__ = lambda *v: 0"),
        ("assert isinstance(f(1), int)", "class L:\n    __class__ = int\ndef f(x): return L()"),
        ("assert f(1).startswith('a')", "class L(int):\n    startswith = lambda *v: True\ndef f(x): return L(1)"),
        ("def cb(x):\n    assert x == 42\nrun(cb)\nassert run",
         "def run(f):\n    for x in range(99):\n        try: f(x)\n        except AssertionError: pass"),
        ("import unittest\nclass T(unittest.TestCase):\n    def test(self):\n        self.assertEqual(f(0), 0)\n"
         "        self.assertEqual(f(1), 5)",
         "import unittest\ndef f(x):\n    if x: raise unittest.SkipTest\n    return 0"),
        ("assert f(f(1)) == 2", "async def f(x): return 3"),
        ("x = [2, 1]\nassert g(x) == [1, 2] and x == [2, 1]", "def g(a):\n    a.sort()\n    return a"),
        ("x = [3, 1]\nassert g(x) == sorted(x)", "def g(a):\n    a.clear()\n    return a"),
        ("x = [3, 1]\nr = g(x)\nassert r == sorted(x)", "def g(a):\n    a.clear()\n    return []"),
        ("x = [3, 1]\nimport math\nassert math.isclose(g(x), sum(x))", "def g(a):\n    a[:] = [0]\n    return 0"),
        ("case = {'in': [3, 1]}\n"
        "assert abs(g(case['in']) - sum(case['in'])) < 1e-9", "def g(a):\n    a.clear()\n    return 0"),
        ("def run(x):\n    return g(x)\nx = [3]\nassert run(x) == x * 2", "def g(a):\n    a.clear()\n    return []"),
    ],
)  # fmt: skip
def test_the_program_does_not_choose_what_it_is_compared_with(verdict, test, program):
    assert verdict(program, [test]).value == 0.0, verdict(program, [test])


def test_a_program_that_ended_starts_again_with_its_classes(verdict):
    program = QUEUE + "import os\ndef end(): os._exit(1)\n"
    tests = ["assert end() == 1", *["q = Queue(1)\nq.put(2)\nassert q.get() == 1"] * 5]
    assert verdict(program, tests).value == pytest.approx(5 / 6)


def test_deep_and_large_values(rung):
    program = "def nest(n):\n    x = []\n    for _ in range(n): x = [x]\n    return x\n"
    program += "def text(n): return 'ab' * n\ndef many(n): return {i: i for i in range(n)}"
    tests = ["x, d = nest(300), 0\nwhile x:\n    x, d = x[0], d + 1\nassert d == 300"]
    tests += ["assert len(text(3_000_000)) == 6_000_000", "assert len(many(300_000)) == 300_000"]
    reward = code_reward(rung, timeout_s=60.0, test_timeout_s=30.0)
    assert reward([program], tests=[tests]) == [1.0]
    reward.close()


def test_classes_that_tests_derive_from_the_programs_are_not_scored(code):
    program = "```python\nclass Shape:\n    def show(self): return self.area()\n```"
    tests = [["class Square(Shape):\n    def area(self): return 4\nassert Square().show() == 4"]]
    [verdict] = code.verdicts([program], {"tests": tests})
    assert verdict.value is None and verdict.status == "gold_unparsable" and "Shape" in verdict.detail
