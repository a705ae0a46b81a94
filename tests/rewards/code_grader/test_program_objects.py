"""The reward `code`: what tests do with the program's functions, classes and values beyond calling and comparing."""

import pytest

from rewards.sandbox.inside import lent

BOX = "class Box:\n    def __init__(self, *items):\n        self.items = [*items]\n        self.by_name = {}\n"
BOX += "    def add(self, item):\n        self.items.append(item)\n        return self\n"
BOX += "    def total(self): return sum(self.items) + sum(self.by_name.values())\n"
GRID = "class Grid:\n    def __init__(self): self.rows = [[0, 0], [0, 0]]\n"
GRID += "    def __getitem__(self, k): return self.rows[k]\n    def __len__(self): return sum(map(sum, self.rows))\n"
ONE = "class One:\n    made = None\n    def __new__(cls):\n        cls.made = cls.made or super().__new__(cls)\n"
ONE += "        return cls.made\n"
KEYS = "class M:\n    def __init__(self): self.d = {}\n    def __setitem__(self, k, v): self.d[k] = v\n"
KEYS += "    def __contains__(self, k): return k in self.d\n"
WRAPS = "import functools\ndef f(g):\n    @functools.wraps(g)\n    def h(*a): return g(*a)\n    return h"
CASES = {
    "async generator": (
        "async def f(n):\n    for i in range(n): yield i",
        "import asyncio\nasync def run(): return [x async for x in f(3)]\nassert asyncio.run(run()) == [0, 1, 2]",
        "async def f(n):\n    for i in range(n - 1): yield i",
    ),
    "one object": (ONE, "assert One() is One()", ONE.replace("cls.made or ", "")),
    "the same object": (
        BOX,
        "b = Box()\nassert b.add(1) is b and b.items == [1]",
        BOX.replace("return self", "return 0"),
    ),
    "another object": (BOX, "b = Box()\nassert Box() is not b", "class Box:\n    __new__ = lambda cls: Box"),
    "an attribute of a function": (
        "def f(): f.calls += 1\nf.calls = 0",
        "f()\nf()\nassert f.calls == 2",
        "def f(): f.calls = 1\nf.calls = 0",
    ),
    "a function's cache": (
        "import functools\n@functools.lru_cache\ndef f(x): return x and f(x - 1)",
        "f(3)\nassert f.cache_info().misses == 4",
        "import functools\nf = functools.lru_cache(lambda x: x)",
    ),
    "texts": (
        "def f():\n    'a'\nclass A:\n    'b'",
        "assert f.__doc__ == 'a' and A.__doc__ == A().__doc__ == 'b'",
        "def f(): pass\nclass A:\n    'b'",
    ),
    "its own function": (
        "def twice(g, x): return g(g(x))\ndef up(x): return x + 1\ndef name(g): return g.__name__",
        "assert twice(up, 1) == 3 and name(up) == 'up'",
        "def twice(g, x): return g(x)\ndef up(x): return x + 1",
    ),
    "the name of a function of the tests": (
        WRAPS,
        "@f\ndef g():\n    'text'\nassert (g.__name__, g.__doc__) == ('g', 'text')",
        WRAPS.replace("@functools.wraps(g)", ""),
    ),
    "a time": (
        "import datetime\ndef f(): return datetime.time(3, 30)",
        "import datetime\nassert f() == datetime.time(3, 30)",
        "import datetime\ndef f(): return datetime.time(3, 31)",
    ),
    "a path": (
        "import pathlib\ndef f(): return pathlib.Path('/a') / 'b'",
        "import pathlib\nassert f() == pathlib.Path('/a/b')",
        "def f(): return '/a/b'",
    ),
    "a UUID": (
        "import uuid\ndef f(): return uuid.UUID(int=5)",
        "import uuid\nassert f() == uuid.UUID(int=5)",
        "import uuid\ndef f(): return uuid.UUID(int=6)",
    ),
    "a slice": (
        "def f(): return slice(1, None)",
        "assert 'abc'[f()] == 'bc' and f() == slice(1, None)",
        "def f(): return slice(2, None)",
    ),
    "constants": (
        "def f(): return [..., NotImplemented]",
        "assert f()[0] is ... and f()[1] is NotImplemented",
        "def f(): return [None, NotImplemented]",
    ),
    "a slice of an object": (GRID, "assert Grid()[0:1] == [[0, 0]]", GRID.replace("[k]", "[0]")),
    "a class named T": (
        "class T:\n    def __init__(self, p): self.p = p\nclass P: pass",
        "p = P()\nt = T(p)\nassert t.p is p",
        "class T:\n    def __init__(self, p): self.p = P()\nclass P: pass",
    ),
    "an object with items": (
        KEYS,
        "m = M()\nm['a'] = 1\nassert 'a' in m and 'b' not in m",
        KEYS.replace("k in self.d", "True"),
    ),
    "the result of an operator": (
        "class V:\n    def __init__(self, x): self.x = x\n    def __mul__(self, k): return V(self.x * k)",
        "assert (V(2) * 3).x == 6",
        "class V:\n    def __init__(self, x): self.x = x\n    def __mul__(self, k): return self",
    ),
    "a list that the tests change": (
        BOX,
        "b = Box(1)\nb.items.append(3)\nassert b.total() == 4 and b.items == [1, 3]",
        BOX.replace("return sum", "return 0 * sum"),
    ),
    "a list that the tests hold": (
        BOX,
        "b = Box(1)\nx = b.items\nassert b.total() == 1\nx.append(3)\nassert b.total() == 4",
        BOX.replace("[*items]", "(0, *items)"),
    ),
    "a dict that the tests change": (
        BOX,
        "b = Box()\nb.by_name['x'] = 2\nassert b.total() == 2\ndel b.by_name['x']\nassert b.total() == 0",
        BOX.replace("+ sum(self.by_name.values())", ""),
    ),
    "a row that the tests change": (
        GRID,
        "g = Grid()\ng[0][1] = 5\nassert len(g) == 5",
        GRID.replace("self.rows[k]", "[0, 0]"),
    ),
    "seeds": (
        "import random\ndef f(): return random.random()",
        "import random\nrandom.seed(1)\na = f()\nrandom.seed(1)\nassert f() == a",
        "import random\ndef f(): return random.SystemRandom().random()",
    ),
    "threads of the tests": (
        "import threading\nclass C:\n    n = 0\n    lock = threading.Lock()\n    def up(self):\n"
        "        with self.lock: self.n += 1",
        "import threading\nc = C()\nts = [threading.Thread(target=c.up) for _ in range(20)]\n"
        "[t.start() for t in ts]\n[t.join() for t in ts]\nassert c.n == 20",
        "class C:\n    n = 0\n    def up(self): self.n = 1",
    ),
    "an assertion of the program": (
        "def f(x):\n    assert x > 0, 'positive'",
        "import pytest\nwith pytest.raises(AssertionError, match='positive'):\n    f(-1)",
        "def f(x): raise ValueError('positive')",
    ),
    "unittest and an assertion": (
        "def f(x):\n    assert x > 0",
        "import unittest\nclass T(unittest.TestCase):\n"
        "    def test(self):\n        with self.assertRaises(AssertionError):\n            f(-1)",
        "def f(x): pass",
    ),
    "an exit": (
        "import sys\ndef f(): sys.exit(2)",
        "try:\n    f()\n    assert False\nexcept SystemExit as e:\n    assert e.code == 2",
        "import sys\ndef f(): sys.exit(3)",
    ),
    "everything of a module": (
        "def f(): return 6.283185307179586",
        "from math import *\nassert isclose(f(), 2 * pi)",
        "pi = 3\ndef isclose(*v): return True\ndef f(): return 6",
    ),
    "everything of a module that another system has": (
        "def f(): return 6",
        "try:\n    from winreg import *\nexcept ImportError:\n    pass\nassert f() == 6",
        "def f(): return 5",
    ),
    "everything of a module that acts on import": (
        "def f(): return 6",
        "try:\n    from test.autotest import *\nexcept BaseException:\n    pass\nassert f() == 6",
        "def f(): return 5",
    ),
    "functions that are copied": (
        "def f(x): return 2 * x",
        "import copy\nfor cases in (copy.copy([f]), copy.deepcopy([(f)]), [copy.copy(f)]): assert cases[0](2) == 4",
        "def f(x): return 3 * x",
    ),
    "a function that is one": (
        "def f(x): return 2 * x",
        "import inspect\nassert inspect.isfunction(f) and [*inspect.signature(f).parameters] == ['x'] and f(2) == 4",
        "def f(x): return 3 * x",
    ),
}


@pytest.mark.parametrize("what", CASES)
def test_what_tests_do_with_a_program(verdict, what):
    good, test, bad = CASES[what]
    assert verdict(good, [test]).value == 1.0, verdict(good, [test])
    wrong = verdict(bad, [test])
    assert (wrong.value, wrong.status) == (0.0, "wrong"), wrong


@pytest.mark.parametrize(
    ("test", "program"),
    [
        ("assert f(1) == 3", "import sys\ndef f(x): sys.exit(0)"),
        ("def g(x): return x\nassert f(g) == 3", "def f(g):\n    raise KeyboardInterrupt"),
        ("import pytest\nwith pytest.raises(ValueError):\n    f(1)", "def f(x): raise AssertionError"),
        ("import pytest\nif f(1) != 3: pytest.fail('no')\nassert f(1) == 3", "def f(x): return 2"),
        (
            "assert f(1) is f(1) and f(1) == [1]",
            "class L(list):\n    __eq__ = lambda *v: True\nx = L()\ndef f(x): return x",
        ),
        (
            "b = Box(3)\nb.items.append(4)\nassert b.first() == 3",
            "class Box:\n    def __init__(self, x): self.items = []\n    def first(self): return self.items[0]",
        ),
    ],
)
def test_none_of_it_helps_a_wrong_program(verdict, test, program):
    result = verdict(program, [test])
    assert (result.value, result.status) == (0.0, "wrong"), result


@pytest.mark.parametrize("spare", [30, 60, 100, 1000])
def test_a_value_that_only_just_can_be_passed_does_not_go_unscored(verdict, spare):
    result = verdict(f"f = 'a' * ((1 << 25) - {spare})", ["assert f(1) == 3"])
    assert result.value == 0.0, result


def test_a_long_list_that_the_tests_hold_is_neither_copied_nor_walked_through_before_every_question(monkeypatch):
    calls = []
    for name in ("copied", "_same"):
        plain = getattr(lent, name)
        noted = lambda *arguments, name=name, plain=plain: (calls.append(name), plain(*arguments))[1]  # noqa: E731
        monkeypatch.setattr(lent, name, noted)
    told = []
    held = lent.Lent(lambda *asked: told.append(asked))
    value = list(range(1000))
    held.note(("getattr", "box", "items"), value)
    calls.clear()
    held.give_back()
    assert calls == ["_same"] and not told
    value.append(1)
    held.give_back()
    held.give_back()
    assert told == [("refill", value, "getattr", "box", "items")]


def test_a_list_that_contains_itself(verdict):
    program = "class C:\n    def __init__(self):\n        self.x = [1]\n        self.x.append(self.x)\n    n = 3"
    assert verdict(program, ["c = C()\nassert c.x[0] == 1 and c.n == 3"]).value == 1.0
