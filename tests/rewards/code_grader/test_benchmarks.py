"""HumanEval and MBPP: every reference solution scores 1, and every mutant that its tests detect scores less."""

import ast
import copy
import json
import multiprocessing
import signal
import time
from collections.abc import Iterator

import pytest

from tests.references.places import SHARED
from tests.references.sandboxes import code_reward

DATA = SHARED / "data"
EVERY = 12
"""The default run takes every `EVERY`-th task; `-m slow` takes all."""


def rows(name: str) -> list[dict]:
    path = DATA / name
    if not path.is_file():
        pytest.skip(f"NOT TESTED: reference data {name} is not next to the repository")
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def tasks(share: int) -> tuple[list[str], list[dict]]:
    """Solutions, and the rows with their tests."""
    humaneval, mbpp = rows("humaneval.jsonl")[::share], rows("mbpp_sanitized.jsonl")[::share]
    solutions = [row.pop("canonical_solution") for row in humaneval] + [row.pop("code") for row in mbpp]
    for row in mbpp:
        row["prompt"] = ""
    return solutions, humaneval + mbpp


def columns(rows: list[dict]) -> dict[str, list]:
    names = {name for row in rows for name in row}
    return {name: [row.get(name) for row in rows] for name in names}


def mutants(source: str, own: str | None) -> Iterator[str]:
    """All variants of the program with one operator or constant changed. own: change only this function, since
    HumanEval's tests may use the prompt's other functions, which the model does not write."""
    tree = ast.parse(source)
    swaps = {
        ast.Add: ast.Sub,
        ast.Sub: ast.Add,
        ast.Mult: ast.Add,
        ast.Div: ast.Mult,
        ast.FloorDiv: ast.Mult,
        ast.Mod: ast.Add,
    }
    swaps |= {ast.Lt: ast.GtE, ast.Gt: ast.LtE, ast.LtE: ast.Gt, ast.GtE: ast.Lt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq}
    swaps |= {
        ast.And: ast.Or,
        ast.Or: ast.And,
        ast.In: ast.NotIn,
        ast.NotIn: ast.In,
        ast.Pow: ast.Mult,
        ast.BitXor: ast.BitAnd,
    }
    swaps |= {ast.BitAnd: ast.BitOr, ast.BitOr: ast.BitAnd, ast.Is: ast.IsNot, ast.IsNot: ast.Is}
    inside = [part for part in tree.body if own is None or getattr(part, "name", None) == own]
    changeable = {id(node) for part in inside for node in ast.walk(part)}
    for index, node in enumerate(ast.walk(tree)):
        if id(node) not in changeable:
            continue
        for change in (_swap_operator, _change_constant):
            mutated = copy.deepcopy(tree)
            if change([*ast.walk(mutated)][index], node, swaps):
                yield ast.unparse(ast.fix_missing_locations(mutated))


def _swap_operator(target: ast.AST, node: ast.AST, swaps: dict) -> bool:
    if isinstance(node, ast.BinOp | ast.AugAssign | ast.BoolOp) and type(node.op) in swaps:
        target.op = swaps[type(node.op)]()
        return True
    if isinstance(node, ast.Compare) and type(node.ops[0]) in swaps:
        target.ops[0] = swaps[type(node.ops[0])]()
        return True
    return False


def _change_constant(target: ast.AST, node: ast.AST, _: dict) -> bool:
    if not isinstance(node, ast.Constant) or node.value is None or node.value is ...:
        return False
    value = node.value
    target.value = (not value) if isinstance(value, bool) else value + (1 if isinstance(value, int | float) else "x")
    return True


def passes(program: str, row: dict) -> bool:
    """The result of the tests in an ordinary process, run as the data set's authors do."""
    if "test" in row:
        source = f"{program}\n{row['test']}\ncheck({row['entry_point']})"
    else:
        source = "\n".join([program, *row["test_imports"], *row["test_list"]])
    signal.setitimer(signal.ITIMER_REAL, 6)
    try:
        exec(compile(source, "<program>", "exec"), {})
        return True
    except BaseException:  # noqa: BLE001 - including the alarm's TimeoutError
        return False
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


def first_detected(task: tuple[str, dict]) -> str | None:
    """The first mutant that its tests detect; None if they detect none, or if the reference solution fails them."""
    program, row = task
    signal.signal(signal.SIGALRM, _raise)
    if not passes(program, row):
        return None
    return next((mutant for mutant in mutants(program, row.get("entry_point")) if not passes(mutant, row)), None)


def _raise(*_: object) -> None:
    raise TimeoutError


@pytest.fixture(scope="module")
def code(rung):
    reward = code_reward(rung, workers=2, timeout_s=40.0, test_timeout_s=20.0)
    yield reward
    reward.close()


@pytest.mark.parametrize("share", [EVERY, pytest.param(1, marks=pytest.mark.slow)])
def test_reference_solutions_score_one(code, share):
    solutions, rows = tasks(share)
    verdicts = code.verdicts(solutions, columns(rows))
    failed = [(row["task_id"], verdict) for row, verdict in zip(rows, verdicts, strict=True) if verdict.value != 1.0]
    assert not failed
    print(
        f"\n{len(rows)} reference solutions score 1, {sum(verdict.ms for verdict in verdicts) / len(rows):.1f} ms each"
    )


@pytest.mark.parametrize("share", [4 * EVERY, pytest.param(1, marks=pytest.mark.slow)])
def test_mutants_score_less(code, share):
    solutions, rows = tasks(share)
    programs = [row["prompt"] + text if "test" in row else text for text, row in zip(solutions, rows, strict=True)]
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        faulty = pool.map(first_detected, list(zip(programs, rows, strict=True)), chunksize=4)
    kept = [(text, row) for text, row in zip(faulty, rows, strict=True) if text is not None]
    verdicts = code.verdicts([text for text, _ in kept], columns([row for _, row in kept]))
    accepted = [
        row["task_id"] for (_, row), verdict in zip(kept, verdicts, strict=True) if verdict.value in (None, 1.0)
    ]
    assert not accepted
    assert len(kept) > 0.8 * len(rows)
    print(f"\n{len(kept)} of {len(rows)} solutions have a mutant that their tests detect: each scores below 1")


@pytest.mark.slow
def test_speed(code):
    """200 different programs with 10 tests each, on two workers."""
    programs = [f"def triple(x):\n    return 3 * x + {n} - {n}\n" for n in range(200)]
    forms = {
        "asserts": [f"assert triple({n}) == {3 * n}" for n in range(10)],
        "cases": {"entry_point": "triple", "cases": [{"args": [n], "expected": 3 * n} for n in range(10)]},
    }
    code(["def triple(x): return 0"] * 2, tests=[forms["asserts"]] * 2)  # start the sandboxes
    for name, tests in forms.items():
        started = time.monotonic()
        verdicts = code.verdicts(programs, {"tests": [tests] * len(programs)})
        seconds = time.monotonic() - started
        assert all(verdict.value == 1.0 for verdict in verdicts)
        median = sorted(verdict.ms for verdict in verdicts)[len(verdicts) // 2]
        print(f"\n{name}: 200 programs with 10 tests in {seconds:.1f} s, median {median:.1f} ms per program")
        assert seconds < 60 and median / 10 <= 10
