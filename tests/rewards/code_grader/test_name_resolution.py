"""The reward `code`: names that a program shares with the tests or with Python never replace the tests' own helpers."""

import pytest

from rewards.code_grader.forms import TestsUnusable, read_tests
from rewards.code_grader.reward import CodeReward
from tests.references.sandboxes import needs_any

HELPERS = [
    "len",
    "sorted",
    "set",
    "sum",
    "abs",
    "all",
    "isclose",
    "math",
    "check",
    "candidate",
    "triple_",
    "print",
    "isinstance",
]
HONEST = "".join(f"def {name}(*values):\n    raise ValueError('the program has its own {name}')\n" for name in HELPERS)
HONEST += "__record__ = __held__ = __candidate__ = None\ndef triple(x):\n    return [3 * part for part in x]\n"
SELF_GRADED = "".join(f"def {name}(*values):\n    return True\n" for name in HELPERS if name != "math")
SELF_GRADED += "class math:\n    isclose = lambda *values: True\ndef triple(x):\n    return [0, 0]\n"
ASSERTS = [
    "assert sorted(triple([2, 1])) == [3, 6]",
    "assert len(triple([1])) == 1 and set(triple([1])) == {3}",
    "assert math.isclose(sum(triple([1, 2])), 9) and all(isclose(a, 3) for a in triple([1, 1]))",
    "assert abs(triple([1, 2])[1] - 6) < 1e-9 and isinstance(triple([]), list)",
]
CHECK = "import math\nfrom math import isclose\ndef check(candidate):\n" + "".join(
    f"    {line.replace('triple', 'candidate')}\n" for line in ASSERTS
)


@pytest.fixture(scope="module")
def code():
    needs_any()
    reward = CodeReward(timeout_s=6.0, test_timeout_s=2.0, memory_mb=256)
    yield reward
    reward.close()


@pytest.mark.parametrize(
    "row",
    [
        {"tests": ASSERTS},
        {"tests": ASSERTS, "entry_point": "triple"},
        {"tests": "\n".join(ASSERTS)},
        {"tests": CHECK, "entry_point": "triple"},
        {"tests": CHECK, "entry_point": "triple", "prompt": "def triple(x):\n    '''Three times.'''\n"},
    ],
    ids=["lines", "lines with a name", "module", "check", "check with a prompt"],
)
def test_helpers_of_the_program_neither_break_nor_pass_the_tests(verdict, row):
    honest = verdict(HONEST, **row)
    assert honest.value == 1.0, honest
    cheat = verdict(SELF_GRADED, **row)
    assert (cheat.value, cheat.status) == (0.0, "wrong"), cheat


@pytest.mark.parametrize("name", ["sorted", "check", "candidate", "isclose", "len", "recorder"])
@pytest.mark.parametrize("prompt", ["", "def {name}(x):\n    '''Three times.'''\n"])
def test_check_calls_the_program_under_any_function_name(verdict, name, prompt):
    """The name may be a built-in, or one that the tests define, import, or use for something else."""
    check = (
        CHECK
        + "    recorder = len\n    assert recorder(candidate([1])) == len(sorted([1])) and candidate([2]) == [6]\n"
    )
    columns = {"test": check, "entry_point": name, "prompt": prompt.format(name=name)}
    honest = verdict(f"def {name}(x):\n    return [3 * part for part in x]\n", None, **columns)
    assert honest.value == 1.0, honest
    for program in (f"def {name}(*x):\n    return True\n", f"def {name}(*x):\n    return [1, 2]\n", "x = 1\n"):
        cheat = verdict(program, None, **columns)
        assert cheat.status == "wrong" and cheat.value == 0.0, (program, cheat)


def test_a_function_named_like_a_builtin_is_the_one_that_all_tests_call(verdict):
    tests = ["assert sum(10, 15) == 6", "assert sum(100, 150) == 93"]
    program = "def sum(a, b):\n    return {6: 6, 93: 93}[6 if a == 10 else 93]\n"
    assert verdict(program, tests).value == 1.0
    assert verdict(program, ["assert sum(10, 15) == int('6')", "assert sum(100, 150) == 93"]).value == 1.0
    assert verdict(program, ["assert set([sum(10, 15)]) == {6}", "assert {93} == set([sum(100, 150)])"]).value == 1.0


@pytest.mark.parametrize(
    "tests",
    [
        ["assert abs(sum(10, 15) - 6) < 1e-9"],  # the program's `abs` would grade its `sum`
        ["assert len(sorted([1, 2])) == 2", "assert len(sorted([1])) == 1"],
        ["assert sum(10, 15) == 6", "assert max(1, 2) == 2"],
    ],
)
def test_tests_with_an_ambiguous_function(verdict, tests):
    with pytest.raises(TestsUnusable, match="entry_point"):
        read_tests({"tests": tests})
    assert verdict("def abs(x):\n    return 0\n", tests).status == "gold_unparsable"
    assert verdict("def sum(a, b):\n    return 6\n", [tests[0]], entry_point="sum").status in ("correct", "wrong")
