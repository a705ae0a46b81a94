"""Reads tests that are data: calls with expected values, and runs of a script with expected output, in the forms of the
data sets that have them (APPS, TACO, PRIME; open-r1, LiveCodeBench) and in our own."""

from __future__ import annotations

import ast
import json
from collections.abc import Mapping, Sequence
from typing import Any

from rewards.code_grader.kinds import Case, CaseTests, ScriptTest, ScriptTests
from rewards.code_grader.name_resolution import TestsUnusable
from rewards.code_grader.program import defined_names, parse
from rewards.sandbox.inside import values, wire

_COMPARISONS = ("tokens", "lines", "exact")


def read_cases(tests: Mapping[str, Any], row: Mapping[str, Any]) -> CaseTests:
    """Our own form, {"entry_point": "f", "cases": [{"args": [1], "expected": 3}]}. Raises TestsUnusable."""
    entry_point, cases = tests.get("entry_point") or row.get("entry_point"), tests.get("cases")
    if not isinstance(entry_point, str) or not isinstance(cases, list) or not cases:
        raise TestsUnusable("the tests are an object: it needs `entry_point` (a name) and `cases` (a non-empty list)")
    return CaseTests(
        entry_point=entry_point,
        cases=tuple(_case(case, tests.get("tolerance")) for case in cases),
        checker=_checker(row, scripts=False),
    )


def read_calls(tests: Mapping[str, Any], row: Mapping[str, Any]) -> CaseTests | ScriptTests:
    """{"inputs": [...], "outputs": [...]}, with `fn_name` for calls of a function. Raises TestsUnusable."""
    inputs, outputs = tests.get("inputs"), tests.get("outputs")
    if not isinstance(inputs, list) or not isinstance(outputs, list) or len(inputs) != len(outputs) or not inputs:
        raise TestsUnusable("the tests need `inputs` and `outputs`: two non-empty lists of the same length")
    function = _function({**row, **tests})
    if function is None:
        runs = [{"stdin": given, "stdout": wanted} for given, wanted in zip(inputs, outputs, strict=True)]
        return read_runs(runs, row)
    return _calls(function, inputs, outputs, row)


def read_runs(tests: Sequence[Mapping[str, Any]], row: Mapping[str, Any]) -> CaseTests | ScriptTests:
    """[{"stdin": "...", "stdout": "..."}], or the same with `input`, `output` and `testtype`, which may also be
    `functional`: calls of a function. Raises TestsUnusable."""
    if all("input" in test and "output" in test for test in tests):
        kinds = {str(test.get("testtype") or test.get("type") or "stdin") for test in tests}
        function = _function({**row, **tests[0]})
        if kinds == {"functional"} or (function is not None and "fn_name" in tests[0]):
            if function is None:
                raise TestsUnusable("the tests are functional: name the function in `fn_name` or `entry_point`")
            return _calls(function, [test["input"] for test in tests], [test["output"] for test in tests], row)
        if "functional" in kinds:
            raise TestsUnusable("the tests are partly functional, partly for scripts")
        tests = [{**test, "stdin": test["input"], "stdout": test["output"]} for test in tests]
    if not all("stdin" in test and "stdout" in test for test in tests):
        raise TestsUnusable("tests that are objects need `stdin` and `stdout`, or `input` and `output`")
    return ScriptTests(runs=tuple(map(_script, tests)), checker=_checker(row, scripts=True))


def _calls(function: str, inputs: Sequence[Any], outputs: Sequence[Any], row: Mapping[str, Any]) -> CaseTests:
    """Calls of a function. An input is a list of arguments, an object of named ones, or a text with one value a line.
    Some data sets wrap every output in a list of one: then the element is right as well."""
    wrapped = all(isinstance(output, list) and len(output) == 1 for output in outputs)
    cases = []
    for given, wanted in zip(inputs, outputs, strict=True):
        named = isinstance(given, Mapping)
        if isinstance(given, str):
            args = [_value(line) for line in given.splitlines() if line.strip()]
            wanted = _value(wanted) if isinstance(wanted, str) else wanted
        else:
            args = [] if named else given if isinstance(given, list) else [given]
        case = _case({"args": args, "kwargs": given if named else {}, "expected": wanted}, None)
        other = wanted[0] if wrapped and isinstance(wanted, list) else wanted
        cases.append(
            Case(args=case.args, kwargs=case.kwargs, expected=wanted, tolerance=None, loose=True, or_else=other)
        )
    return CaseTests(entry_point=function, cases=tuple(cases), checker=_checker(row, scripts=False))


def _value(text: str) -> Any:
    """The value that a text stands for: JSON, or a Python literal; else the text itself."""
    for read in (json.loads, ast.literal_eval):
        try:
            return read(text.strip())
        except (ValueError, SyntaxError, RecursionError, MemoryError):
            continue
    return text


def _function(fields: Mapping[str, Any]) -> str | None:
    """The name of the function that the tests call; None for scripts."""
    metadata = fields.get("metadata")
    if isinstance(metadata, str) and metadata.lstrip().startswith("{"):
        metadata = _value(metadata)
    named = {**(metadata if isinstance(metadata, Mapping) else {}), **{k: v for k, v in fields.items() if v}}
    for key in ("fn_name", "func_name", "entry_point"):
        if isinstance(named.get(key), str) and named[key]:
            return named[key]
    return None


def _case(case: Any, tolerance: Any) -> Case:
    if not isinstance(case, Mapping) or "expected" not in case:
        raise TestsUnusable(f"a case must be an object with `args` and `expected`: {str(case)[:100]}")
    args, kwargs = case.get("args") or [], case.get("kwargs") or {}
    if not isinstance(args, list) or not isinstance(kwargs, Mapping):
        raise TestsUnusable(f"a case needs `args` that are a list, and `kwargs` that are an object: {str(case)[:100]}")
    try:
        return Case(
            args=tuple(values.encode(value) for value in args),
            kwargs={str(name): values.encode(value) for name, value in kwargs.items()},
            expected=case["expected"],
            tolerance=_tolerance(case.get("tolerance", tolerance)),
        )
    except wire.NotPlain as error:
        raise TestsUnusable(f"a case's arguments cannot be passed: {error}") from None


def _script(test: Mapping[str, Any]) -> ScriptTest:
    tolerance = _tolerance(test.get("tolerance"))
    return ScriptTest(stdin=_text(test["stdin"]), stdout=_text(test["stdout"]), tolerance=tolerance)


def _text(value: Any) -> str:
    """A stream's content; some data sets give a list of lines."""
    if isinstance(value, list | tuple):
        return "\n".join(map(str, value))
    return "" if value is None else str(value)


def _tolerance(value: Any) -> float | None:
    if value is not None and (isinstance(value, bool) or not isinstance(value, int | float) or not value >= 0):
        raise TestsUnusable(f"a tolerance must be a number >= 0: {value!r:.50}")
    return None if value is None else float(value)


def _checker(row: Mapping[str, Any], *, scripts: bool) -> str:
    """How results are compared: the name of a comparison of texts, or a source that defines check(...)."""
    checker = row.get("checker") or "tokens"
    if not isinstance(checker, str):
        raise TestsUnusable(f"`checker` must be a text: {checker!r:.50}")
    if checker in _COMPARISONS:
        return checker if scripts else ""
    tree = parse(checker)
    if tree is None or "check" not in defined_names(tree):
        raise TestsUnusable(f"`checker` must be one of {', '.join(_COMPARISONS)}, or Python that defines check(...)")
    return checker
