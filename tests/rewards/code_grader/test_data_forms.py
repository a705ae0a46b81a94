"""The forms of published data sets, as they are."""

import json
from contextlib import closing

import pytest

from rewards.code_grader.forms import TestsUnusable, read_tests, row_limits
from tests.references.sandboxes import code_reward

POWER = "def power(x, n):\n    return x ** n\n"
METHOD = "class Solution:\n    def power(self, x: int, n: int) -> List[int]:\n        return x ** n\n"
SCRIPT = "x, n = map(int, input().split())\nprint(x ** n)\n"
CALLS = {"inputs": [[2, 3], [5, 2]], "outputs": [8, 25], "fn_name": "power"}
WRAPPED = {"inputs": [[2, 3], [5, 2]], "outputs": [[8], [25]], "fn_name": "power"}
LINES = {"inputs": ["2\n3", "5\n2"], "outputs": ["8", "25"], "fn_name": "power"}
NAMED = {"inputs": [{"x": 2, "n": 3}, {"n": 2, "x": 5}], "outputs": [8, 25], "fn_name": "power"}
FUNCTIONAL = [{"input": "2\n3", "output": "8", "testtype": "functional"}]
STDIN = {"inputs": ["2 3\n", "5 2\n"], "outputs": ["8\n", "25\n"]}
STREAMS = [{"input": "2 3", "output": "8", "testtype": "stdin"}, {"input": "5 2", "output": "25", "testtype": "stdin"}]
FORMS = [
    *[({"tests": tests}, program) for tests in (CALLS, WRAPPED, LINES, NAMED) for program in (POWER, METHOD)],
    *[({"tests": json.dumps(tests)}, POWER) for tests in (CALLS, WRAPPED, LINES)],
    *[({"tests": FUNCTIONAL, **name}, METHOD) for name in (
        {"fn_name": "power"}, {"entry_point": "Solution().power"}, {"metadata": json.dumps({"func_name": "power"})})],
    ({"input_output": json.dumps(CALLS)}, POWER),
    ({"input_output": json.dumps(STDIN)}, SCRIPT),
    *[({"tests": tests}, SCRIPT) for tests in (STDIN, STREAMS, json.dumps(STREAMS))],
    ({"official_tests": [{"input": "2 3", "output": "8"}]}, SCRIPT),
    ({"tests": {"inputs": [["2", "3"]], "outputs": [["8"]]}}, "print(int(input()) ** int(input()))"),
    ({"tests": "def check(candidate):\n    assert candidate(x=2, n=3) == 8",
      "entry_point": "Solution().power"}, METHOD),
    ({"tests": ["assert Solution().power(2, 3) == 8"]}, METHOD),
    ({"tests": ["assert power(2, 3) == 8"], "entry_point": "Solution().power"}, METHOD),
    ({"tests": {"entry_point": "Solution.power", "cases": [{"args": [2, 3], "expected": 8}]}}, METHOD),
]  # fmt: skip


@pytest.mark.parametrize("number", range(len(FORMS)))
def test_every_form(verdict, number):
    row, program = FORMS[number]
    right = verdict(f"Easy:\n```python\n{program}```\n", **row)
    assert right.value == 1.0, right
    wrong = verdict(program.replace("**", "+"), **row)
    assert (wrong.value, wrong.status) == (0.0, "wrong"), wrong


def test_each_call_of_a_method_has_an_object_of_its_own(verdict):
    program = "class Solution:\n    def __init__(self): self.n = 0\n    def up(self, x):\n        self.n += x\n"
    program += "        return self.n"
    assert verdict(program, {"inputs": [[1], [2], [3]], "outputs": [1, 2, 3], "fn_name": "up"}).value == 1.0


def test_the_usual_imports_of_leetcode(verdict):
    program = "class Solution:\n    def order(self, a: List[int], k: Optional[int] = None) -> int:\n"
    program += "        h = []\n        for x, n in Counter(a).items(): heappush(h, (-n, x))\n"
    program += "        return heapq.heappop(h)[1] + bisect_left(a, 0) + pow(2, 3, 5) + int(inf > 1)"
    assert verdict(program, {"inputs": [[[7, 7, 8]]], "outputs": [11], "fn_name": "order"}).value == 1.0
    assert verdict("def order(a) -> List[int]: return 11", {**CALLS, "fn_name": "order"}).value == 0.0


def test_keys_that_are_integers(verdict):
    tests = {"entry_point": "swap", "cases": [{"args": [{1: 2}], "expected": {2: 1}}]}
    assert verdict("def swap(d): return {v: k for k, v in d.items()}", tests).value == 1.0
    assert verdict("def swap(d): return {str(v): k for k, v in d.items()}", tests).value == 0.0
    assert verdict("def swap(d): return {2: 1}", {**tests, "cases": [{"args": [], "expected": {"2": 1}}]}).value == 0.0


def test_numbers_compare_as_judges_compare_them(verdict):
    calls = {"inputs": [[1]], "outputs": [0.333333], "fn_name": "f"}
    assert verdict("def f(x): return x / 3", calls).value == 1.0
    assert verdict("def f(x): return x / 3 + 1e-3", calls).value == 0.0
    assert verdict("def f(x): return 10**12 + 1", {**calls, "outputs": [10**12]}).value == 0.0
    assert verdict("print(1 / 3)", [{"stdin": "", "stdout": "0.33333333\n"}]).value == 1.0
    assert verdict("print(1 / 3)", [{"stdin": "", "stdout": "0.33333333\n"}], checker="lines").value == 0.0


PAIR = "def check(stdin, stdout, expected):\n    a, b = map(int, stdout.split())\n    return a + b == int(stdin)"
PAIR_VALUE = "def check(args, value, expected):\n    return sum(value) == args[0]"


def test_a_checker_of_the_problem(verdict):
    runs, calls = [{"stdin": "7", "stdout": "0 7"}], {"inputs": [[7]], "outputs": [[0, 7]], "fn_name": "split"}
    assert verdict("n = int(input())\nprint(n - 3, 3)", runs, checker=PAIR).value == 1.0
    assert verdict("n = int(input())\nprint(n, 3)", runs, checker=PAIR).value == 0.0
    assert verdict("def split(n): return [n - 1, 1]", calls, checker=PAIR_VALUE).value == 1.0
    assert verdict("def split(n): return [n - 1, 2]", calls, checker=PAIR_VALUE).value == 0.0
    for nonsense in ("print('nonsense')", "print(1)", "print('\\0' * 6_000_000)"):
        assert verdict(nonsense, runs, checker=PAIR).value == 0.0, "the checker fails on it alone"
    assert verdict("def split(n): return 'nonsense'", calls, checker=PAIR_VALUE).value == 0.0
    for bad in ("def check(*values): return unknown", "import nothing\ndef check(*values): return True", "tokens of"):
        assert verdict("print(input(), 0)", runs, checker=bad).status == "gold_unparsable"


SPIN = """
def check(given, got, expected):
    while got == "spin":
        pass
    return got == expected
"""


def test_output_on_which_a_checker_hangs_is_wrong(rung):
    """Also if it takes all of the program's time; a checker that hangs on the expected output, too, is unusable."""
    with closing(code_reward(rung, timeout_s=1.0, test_timeout_s=1.0)) as reward:
        rows = {
            "tests": [[{"stdin": "", "stdout": "1"}]] * 2 + [[{"stdin": "", "stdout": "spin"}]],
            "checker": [SPIN] * 3,
        }
        programs = ["print('spin', end='')", "print('1', end='')", "print('spin', end='')"]
        found = [verdict.status for verdict in reward.verdicts(programs, rows)]
    assert found == ["wrong", "correct", "gold_unparsable"]


def test_a_checker_gets_data_only(verdict):
    lie = "class L(list):\n    def __iter__(self): return iter([7])\n    __eq__ = lambda *v: True\n"
    lie += "def split(n): return L([1])"
    calls = {"inputs": [[7]], "outputs": [[0, 7]], "fn_name": "split"}
    assert verdict(lie, calls, checker=PAIR_VALUE).value == 0.0


def test_limits_of_a_row(verdict):
    slow = "import time\ndef f(x):\n    time.sleep(0.5); return x"
    tests = {"inputs": [[1]], "outputs": [1], "fn_name": "f"}
    assert verdict(slow, tests).value == 1.0
    assert "timed out" in verdict(slow, tests, time_limit="0.1 seconds").detail
    large = "def f(x):\n    bytearray(300 << 20); return x"
    assert verdict(large, tests).status == "memory"
    assert verdict(large, tests, memory_limit="512 megabytes").value == 1.0
    assert row_limits({"time_limit": {"seconds": 2, "nanos": 5 * 10**8}}).test_s == 2.5
    assert verdict(slow, tests, time_limit="soon").status == "gold_unparsable"


@pytest.mark.parametrize(
    "row",
    [
        {"tests": {"inputs": [[1]], "outputs": [], "fn_name": "f"}},
        {"tests": {"inputs": [], "outputs": []}},
        {"tests": [{"input": "1", "output": "1", "testtype": "functional"}]},
        {
            "tests": [{"input": "1", "output": "1", "testtype": "functional"}, {"input": "1", "output": "1"}],
            "fn_name": "f",
        },
        {"tests": [{"input": "1"}]},
        {"tests": [{"stdin": "", "stdout": ""}], "checker": 3},
        {"tests": {"inputs": [[1]] * 3000, "outputs": [1] * 3000, "fn_name": "f"}},
    ],
)
def test_unusable_tests_are_reported(row):
    with pytest.raises(TestsUnusable):
        read_tests(row)
