"""The reward `code`: tests that change what is around the program are not scored, since it runs elsewhere."""

import pytest

USELESS = [
    "import io, contextlib\nout = io.StringIO()\nwith contextlib.redirect_stdout(out):\n    show(3)\n"
    "assert out.getvalue() == '3\\n'",
    "import io, sys\nsys.stdin = io.StringIO('3')\nassert show(3) is None",
    "from unittest.mock import patch\nwith patch('builtins.input', return_value='3'):\n    assert show(3) is None",
    "import unittest.mock\n@unittest.mock.patch('builtins.print')\n"
    "def test_it(p):\n    assert show(3) is None\ntest_it()",
    "open('/tmp/x', 'w').write('3')\nassert show('/tmp/x') is None",
    "import tempfile\nwith tempfile.TemporaryDirectory() as folder:\n    assert show(folder) is None",
    "import os\nos.environ['X'] = '1'\nassert show(3) is None",
    "import warnings\nwith warnings.catch_warnings(record=True) as seen:\n    show(3)\n    assert seen",
    "import warnings, pytest\nwith warnings.catch_warnings():\n    warnings.simplefilter('error')\n"
    "    with pytest.raises(UserWarning):\n        show(3)",
    "from pathlib import Path\nPath('/tmp/x').write_text('3')\nassert show('/tmp/x') is None",
    "import unittest\nclass T(unittest.TestCase):\n"
    "    def test(self):\n        with self.assertLogs():\n            show(3)",
    "import pytest\n@pytest.fixture(autouse=True)\ndef before(): pass\ndef test_it():\n    assert show(3) is None",
    "import pytest\nwith pytest.warns(UserWarning):\n    show(3)\nassert show(3) is None",
]
USEFUL = [
    ("def patch(a, b): return {**a, **b}", "assert patch({1: 2}, {3: 4}) == {1: 2, 3: 4}", {}),
    ("class Door:\n    def open(self): return 'open'", "door = Door()\nassert door.open() == 'open'", {}),
    ("def open(x): return 2 * x", "assert open(2) == 4", {"entry_point": "open"}),
    ("def f(x): return x", "import sys, os\nassert f(os.environ.get('X', 3)) == 3 and sys.argv is not None", {}),
    ("class D:\n    def write_text(self, x): return len(x)", "assert D().write_text('ab') == 2", {}),
    (
        "def f(x): return x",
        "import warnings\nwith warnings.catch_warnings():\n    warnings.simplefilter('ignore')\n    assert f(3) == 3",
        {},
    ),
    ("def f(x): return x", "import tempfile\nassert f(3) == 3", {}),
]


@pytest.mark.parametrize("test", USELESS)
def test_tests_that_do_not_reach_the_program_are_not_scored(verdict, test):
    result = verdict("import logging, warnings\ndef show(x): print(x)", [test])
    assert (result.value, result.status) == (None, "gold_unparsable"), result


@pytest.mark.parametrize(("program", "test", "columns"), USEFUL)
def test_names_alone_do_not_decide(verdict, program, test, columns):
    result = verdict(program, [test], **columns)
    assert result.value == 1.0, result
