"""Parses the forms in which data sets provide tests into three kinds: asserts, cases and scripts."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from ouro_rl.core.benchmarks import TEST_COLUMNS
from rewards.code_grader.assert_forms import read_lines, read_module
from rewards.code_grader.data_forms import read_calls, read_cases, read_runs
from rewards.code_grader.kinds import RowLimits, Tests
from rewards.code_grader.name_resolution import TestsUnusable

ROW_COLUMNS = (
    *TEST_COLUMNS, "entry_point", "fn_name", "func_name", "metadata", "prompt", "test_imports",
    "test_setup_code", "checker", "time_limit", "memory_limit",
)  # fmt: skip
_MAX_TESTS = 2000
_NUMBER = re.compile(r"\d+(?:\.\d+)?")


def read_tests(row: Mapping[str, Any], packages: frozenset[str] = frozenset()) -> Tests:
    """The tests of a row, in one of the forms of docs/rewards.md or as JSON text of it. packages: those that tests may
    import. Raises TestsUnusable."""
    tests = _from_json(_given(row))
    if isinstance(tests, str):
        return read_module(tests, row, packages)
    count = len(tests.get("inputs") or tests.get("cases") or ()) if isinstance(tests, Mapping) else len(tests or ())
    if count > _MAX_TESTS:
        raise TestsUnusable(f"there are {count} tests: give at most {_MAX_TESTS}")
    if isinstance(tests, Mapping):
        return read_calls(tests, row) if "inputs" in tests else read_cases(tests, row)
    if not isinstance(tests, list | tuple) or not tests:
        raise TestsUnusable("there are no tests: give a non-empty list, or an object with `entry_point` and `cases`")
    tests = [_from_json(test) for test in tests]
    if all(isinstance(test, str) for test in tests):
        return read_lines(tests, row, packages)
    if all(isinstance(test, Mapping) for test in tests):
        return read_runs(tests, row)
    raise TestsUnusable("the tests must all be strings with asserts, or all objects with `stdin` and `stdout`")


def row_limits(row: Mapping[str, Any]) -> RowLimits:
    """The limits of a row: `time_limit` in seconds for a test, `memory_limit` in MiB; numbers, or texts with one
    ("2 seconds", "256 megabytes"). Raises TestsUnusable."""
    time_s, memory = _limit(row, "time_limit"), _limit(row, "memory_limit")
    return RowLimits(test_s=time_s, memory_mb=None if memory is None else int(memory))


def _limit(row: Mapping[str, Any], name: str) -> float | None:
    value = row.get(name)
    if isinstance(value, str):
        found = _NUMBER.search(value)
        value = float(found.group()) if found else value
    if isinstance(value, Mapping):  # {"seconds": 2, "nanos": 0}
        value = float(value.get("seconds") or 0) + float(value.get("nanos") or 0) / 1e9
    if value is not None and (isinstance(value, bool) or not isinstance(value, int | float) or not value > 0):
        raise TestsUnusable(f"`{name}` must be a number > 0: {value!r:.50}")
    return value


def _from_json(tests: Any) -> Any:
    if isinstance(tests, str) and tests.lstrip()[:1] in ("[", "{"):
        try:
            return json.loads(tests)
        except (ValueError, RecursionError) as error:
            raise TestsUnusable(f"the tests are not valid JSON: {error}") from None
    return tests


def _given(row: Mapping[str, Any]) -> Any:
    for name in TEST_COLUMNS:
        if row.get(name) is not None:
            return row[name]
    raise TestsUnusable("there are no tests: add a column `tests`, or `test_list`, or `test` with `entry_point`")
