"""The reward `code`: forms of tests, statuses, and cheats, none of which may score."""

import json
import time
from contextlib import closing

import pytest

from ouro_rl.core.errors import UserError
from tests.references.code_cheats import CHEATS, SCRIPT_CHEATS
from tests.references.patience import HANG_S, comes_true
from tests.references.sandboxes import code_reward

ASSERTS = ["assert triple(1) == 3", "assert triple(14) == 42", "assert [triple(x) for x in (0, -2)] == [0, -6]"]
CASES = {"entry_point": "triple", "cases": [{"args": [1], "expected": 3}, {"args": [14], "expected": 42}]}
SCRIPT = [{"stdin": "1\n", "stdout": "3\n"}, {"stdin": "14\n", "stdout": "42\n"}]
CHECK = """
def check(candidate):
    assert candidate(1) == 3, "message"
    for x in range(2, 5):
        assert candidate(x) == 3 * x
    assert True
"""
GOOD = "def triple(x):\n    return 3 * x\n"
GOOD_SCRIPT = "print(3 * int(input()))"


@pytest.mark.parametrize("tests", [ASSERTS, CASES], ids=["asserts", "cases"])
@pytest.mark.parametrize("name", CHEATS)
def test_no_cheat_scores(verdict, name, tests):
    result = verdict(CHEATS[name], tests)
    assert result.value == 0.0 and result.status == "wrong", result
    assert verdict(f"{GOOD}# right after {name}", tests).value == 1.0  # a distinct text, to bypass the cache


@pytest.mark.parametrize("name", SCRIPT_CHEATS)
def test_no_script_cheat_scores(verdict, name):
    result = verdict(SCRIPT_CHEATS[name] or "pass", SCRIPT)
    assert (result.value, result.status) == (0.0, "wrong"), result


def test_no_cheat_of_check_scores(verdict):
    for name in ("lying object", "lying int", "stop iteration", "assertion error", "hard exit in the function"):
        result = verdict(CHEATS[name], None, test=CHECK, entry_point="triple")
        assert (result.value, result.status) == (0.0, "wrong"), (name, result)


def test_a_loop_over_calls_cannot_be_cut_short(verdict):
    tests = ["assert all(x == 3 for x in map(triple, [1, 1]))", "for x in map(triple, [1]):\n    assert x == 3"]
    assert verdict("def triple(x): raise StopIteration", tests).value == 0.0
    assert verdict(GOOD, tests).value == 1.0


LATER = """import time
calls = 0
def triple(x):
    global calls
    calls += 1
    if calls > {calls}: {then}
    return 3 * x
"""


@pytest.mark.parametrize("then", ["time.sleep(9)", "raise ValueError", "__import__('os')._exit(0)"])
@pytest.mark.parametrize(
    ("check", "calls", "value"),
    [
        ("for x in range(5):\n        assert candidate(x) == 3 * x", 1, 0.0),
        ("for x in range(5):\n        y = candidate(x)\n        assert y == 3 * x", 2, 0.0),
        (
            "assert candidate(1) == 3\n    for x in range(5):\n        y = candidate(x)\n        assert y == 3 * x",
            3,
            0.5,
        ),
        ("def same(x):\n        assert candidate(x) == 3 * x\n    same(1)\n    same(2)\n    candidate(3)", 2, 0.0),
        ("assert candidate(1) == 3\n    assert candidate(2) == 6\n    candidate(3)", 2, 0.5),
    ],
)
def test_a_repeated_test_must_hold_to_the_end(verdict, then, check, calls, value):
    check = f"def check(candidate):\n    {check}\n"
    result = verdict(LATER.format(calls=calls, then=then), check, entry_point="triple")
    assert (result.value, result.status) == (value, "wrong"), result
    assert verdict(GOOD, check, entry_point="triple").value == 1.0


FORGED = """
import json, os, struct, sys, time
def triple(x):
    frame = sys._getframe()
    while "nonce" not in frame.f_locals.get("request", {}):
        frame = frame.f_back
    body = ANSWER.replace("NONCE", frame.f_locals["request"]["nonce"]).encode()
    os.write(3, struct.pack(">I", len(body)) + body)
    time.sleep(9)
"""


def test_forged_answers(verdict):
    emptied = FORGED.replace("ANSWER", repr(json.dumps({"nonce": "NONCE", "ok": [], "changed": [[0, []]]})))
    assert verdict(emptied, ["x = [3, 1]\nassert triple(x) == sorted(x)"]).value == 0.0
    huge = FORGED.replace("ANSWER", repr('{"nonce": "NONCE", "ok": {"f": 1' + 400 * "0" + "}}"))
    assert verdict(huge, CASES).status == "wrong"


def test_every_form(code, verdict):
    fenced = f"It is easy:\n```python\n{GOOD}```\nDone."
    for tests in (ASSERTS, CASES, "\n".join(ASSERTS)):
        assert verdict(fenced, tests).value == 1.0
    assert verdict(GOOD_SCRIPT, SCRIPT).value == 1.0
    assert verdict(GOOD, None, test=CHECK, entry_point="triple").value == 1.0
    columns = {"test_list": [ASSERTS], "test_imports": [["import math"]]}
    assert code(["def triple(x):\n    return x + x + x"], **columns) == [1.0]


def test_partial_credit_and_all_or_nothing(verdict, rung):
    half = "def triple(x):\n    return 42 if x == 14 else None"
    assert verdict(half, CASES).value == 0.5
    assert verdict(half, ASSERTS).value == pytest.approx(1 / 3)
    assert verdict(half.replace("14", "1").replace("42", "3"), None, test=CHECK, entry_point="triple").value == 0.5
    slow = f"import time\ndef triple(x):\n    time.sleep({2 * HANG_S} * (x == 1)); return 3 * x"
    started = time.monotonic()
    result = verdict(slow, CASES)
    assert result.value == 0.5 and "timed out" in result.detail and time.monotonic() - started < HANG_S
    strict = code_reward(rung, all_or_nothing=True)
    assert [strict([text], tests=[CASES])[0] for text in (half, GOOD)] == [0.0, 1.0]
    strict.close()


def test_statuses(code, verdict):
    cases = {
        "no_answer": ("<think>def triple(x): ...", ASSERTS, 0.0),
        "wrong": ("def triple(x) return", ASSERTS, 0.0),
        "gold_unparsable": (GOOD, ["assert triple(1) = 3"], None),
        "correct": (GOOD, ASSERTS, 1.0),
    }
    for status, (completion, tests, value) in cases.items():
        result = verdict(completion, tests)
        assert (result.status, result.value) == (status, value), result
    broken = verdict(GOOD, ["assert triple(1) == 3"], test_setup_code="import no_such_module")
    assert broken.status == "gold_unparsable" and "no_such_module" in broken.detail
    function = {"entry_point": "triple", "cases": [{"args": [len], "expected": 3}]}
    assert verdict(GOOD, function).status in ("gold_unparsable", "wrong")
    for program in ("while True: pass", "def triple(x):\n    while True: pass", "import time; time.sleep(60)"):
        result = verdict(program, ASSERTS)
        assert (result.status, result.value) == ("wrong", 0.0) and "timed out" in result.detail
    full = verdict("def triple(x): return len(bytearray(1 << 30))", ASSERTS)
    assert (full.status, full.value) == ("memory", 0.0) and "MemoryError" in full.detail
    large = verdict("def triple(x): return 'x' * 40_000_000", ASSERTS)
    assert (large.status, large.value) == ("limit", 0.0) and "larger" in large.detail
    assert "SIGSEGV" in verdict("import ctypes\ndef triple(x): ctypes.string_at(0)", ASSERTS).detail
    with pytest.raises(UserError, match="`tests`"):
        code([GOOD], answer=["?"])


def test_text_that_grows_when_encoded_is_the_programs_fault(rung):
    program = """
import gc, os, struct
def f(x):
    calls = [call for call in gc.get_objects() if isinstance(call, dict) and "kwargs" in call and "nonce" in call]
    [nonce] = {call["nonce"] for call in calls}
    body = ('{"nonce":"%s","ok":"%s"}' % (nonce, chr(233) * 6_000_000)).encode()
    os.write(3, struct.pack(">I", len(body)) + body)
    while True: pass
"""
    with closing(code_reward(rung, timeout_s=HANG_S, test_timeout_s=HANG_S, memory_mb=256)) as patient:
        [result] = patient.verdicts([program], {"tests": [["assert f(1) == 2"]]})
    assert (result.value, result.status) == (0.0, "wrong") and "larger" in result.detail, result


def test_output_is_limited(verdict):
    assert "bytes of output" in verdict("while True: print('x' * 10000)", SCRIPT).detail
    assert verdict("print('x' * 10**7)\n" + GOOD, ASSERTS).value == 1.0


def test_infrastructure_is_never_the_models_fault(rung):
    reward = code_reward(rung, timeout_s=2.0)
    assert reward([GOOD], tests=[ASSERTS]) == [1.0]
    [worker] = reward._pool._all
    worker.signal_kill()
    assert comes_true(lambda: not worker.alive())
    assert reward([GOOD + "#"], tests=[ASSERTS]) == [1.0]  # the pool notices and starts another worker
    reward.close()


def test_functions_that_work_in_place(verdict):
    tests = ["x = [3, 1, 2]\nassert order(x) is None and x == [1, 2, 3]"]
    assert verdict("def order(x): x.sort()", tests).value == 1.0
    assert verdict("def order(x): pass", tests).value == 0.0
    # The test computes the expected value from the argument, which the program has changed.
    assert verdict("def top(x):\n    x[:] = [0]\n    return 0", ["x = [3]\nassert top(x) == max(x)"]).value == 0.0


def test_errors_that_tests_expect(verdict):
    tests = ["try:\n    f(-1)\nexcept ValueError:\n    pass\nelse:\n    assert False"]
    assert verdict("def f(x):\n    raise ValueError('no')", tests).value == 1.0
    assert verdict("def f(x):\n    raise KeyError('no')", tests).value == 0.0


@pytest.mark.parametrize(
    ("test", "good", "bad"),
    [
        ("if False:\n    assert triple(1) == 3", 0.0, 0.0),
        ("try:\n    assert triple(1) == 3\nexcept: pass", 1.0, 0.0),
        ("for x in [triple(1)] * triple(0): assert x", 0.0, 1.0),
        ("try:\n    assert triple(1) == 2\nexcept AssertionError:\n    assert triple(1) == 3", 1.0, 0.0),
        ("try:\n    if triple(1) != 3: assert False\nexcept: pass", 1.0, 0.0),
        ("triple(0)\nassert True", 1.0, 1.0),
    ],
)
def test_a_test_passes_only_by_an_assert_that_held(verdict, test, good, bad):
    assert verdict(GOOD, [test]).value == good
    assert verdict("def triple(x): return 1", [test]).value == bad
    check = "def check(candidate):\n    " + test.replace("\n", "\n    ").replace("triple", "candidate")
    if "try" in test:  # such a `check` is one test
        assert verdict(GOOD, check, entry_point="triple").value == good
        assert verdict("def triple(x): return 1", check, entry_point="triple").value == bad


def test_values_that_cannot_be_passed(verdict):
    for evade in ("return len", "return 'x' * 30_000_000", "return [0] * 3_000_000"):  # it must not avoid a score
        program = f"def f(x, y=0):\n    {evade}"
        assert verdict(program, ["assert f(f(1), f(1)) == 2"]).value == 0.0
    assert verdict(GOOD, ["assert triple('x' * 40_000_000)"]).status == "gold_unparsable"
    own = "class Own: pass\nassert triple(Own()) == 3"
    unusable = verdict(GOOD, [own])
    assert unusable.status == "gold_unparsable" and "not plain data" in unusable.detail
    assert verdict("import re\ndef f(x): return re.match('a', x)", ["assert f('a')", "assert not f('b')"]).value == 1.0


SELF_GRADED = "isclose = approx = same = check_it = lambda *values: True\ndef triple(x): return True\n"


@pytest.mark.parametrize(
    ("test", "value"),
    [
        ("assert isclose(triple(2.0), 6.0)", 0.0),
        ("y = triple(2.0)\nz = [y]\nassert isclose(z[0], 6.0)", 0.0),
        ("assert all(map(partial(isclose, 6.0), [triple(2.0)]))", 0.0),
        ("assert all(map(isclose, [triple(2.0)], [6.0]))", 0.0),
        ("assert all(map(partial(same, 6.0), [triple(2.0)]))", None),
        ("assert all(isclose(a, b) for a, b in zip(map(triple, [2.0]), [6.0]))", 0.0),
        ("assert same(triple(2.0), 6.0)", None),
        ("assert triple(2.0) == approx(6.0)", None),
        ("for y in [triple(2.0)]:\n    assert check_it(y)", None),
    ],
)
def test_the_tests_own_helpers_are_not_the_programs(verdict, test, value):
    assert verdict(SELF_GRADED, [test]).value == value
    assert verdict(SELF_GRADED, [test], entry_point="triple").value == value
    assert verdict(GOOD, [test]).value == (None if value is None else 1.0)


def test_several_functions_of_the_program(verdict):
    tests = ["assert triple(1) == 3", "assert gcd(4, 6) == 2"]
    program = GOOD + "def gcd(a, b): return 2"
    assert verdict(program, tests).value == 1.0
    assert (
        verdict(program, ["assert gcd(4, 6) + triple(1) == 5"], prompt="def gcd(a, b): ...\ndef triple(x): ...").value
        == 1.0
    )


def test_humaneval_completions_may_be_bodies_or_functions(verdict):
    prompt = 'def helper(x):\n    return x\n\n\ndef triple(x: int) -> int:\n    """Three times."""\n'
    columns = {"test": CHECK.replace("3 * x", "helper(3 * x)"), "entry_point": "triple", "prompt": prompt}
    for completion in ("    return helper(3 * x)\n", f"```python\n{GOOD}```", prompt + "    return 3 * x"):
        assert verdict(completion, None, **columns).value == 1.0
    assert verdict("    return helper(2 * x)\n", None, **columns).value == 0.0


def test_copies_of_a_program_are_run_once(code):
    asked = f"{GOOD}# asked {time.time()}"
    runs = []
    run = code._pool.run
    code._pool.run = lambda items: runs.append(len(items)) or run(items)
    try:
        assert code([asked] * 8, tests=[ASSERTS] * 8) == code([asked], tests=[ASSERTS]) * 8 == [1.0] * 8
    finally:
        code._pool.run = run
    assert runs == [1, 0]
