"""Packages that programs and tests may import, if the reward names them."""

import importlib.util

import pytest

from ouro_rl.core.errors import UserError
from rewards.sandbox import ladder
from tests.references.sandboxes import code_reward

ARRAYS = """
import numpy as np
def scale(a, k): return np.asarray(a) * k
def total(a): return np.asarray(a).sum()
"""
TESTS = [
    "import numpy as np\nassert (scale(np.array([[1, 2], [3, 4]]), 2) == np.array([[2, 4], [6, 8]])).all()",
    "import numpy as np\nassert np.array_equal(scale([1.5], 2), [3.0]) and scale([1, 2], 3).shape == (2,)",
    "assert total([1, 2, 3]) == 6",
]


@pytest.fixture(scope="module")
def packed(rung):
    if importlib.util.find_spec("numpy") is None:
        pytest.skip("NOT TESTED: numpy is not installed")
    reward = code_reward(rung, timeout_s=20.0, test_timeout_s=10.0, packages=["numpy"])
    yield reward
    reward.close()


def test_a_package_can_be_imported_where_it_is_named(packed):
    assert packed([ARRAYS, ARRAYS.replace("* k", "+ k")], tests=[TESTS] * 2) == [1.0, pytest.approx(1 / 3)]
    calls = {"inputs": [[[1, 2], 2]], "outputs": [[2, 4]], "fn_name": "scale"}
    assert packed([ARRAYS], tests=[calls]) == [1.0]


def test_no_other_package_can_be_read(packed):
    program = "import numpy, os\ndef f():\n    folder = os.path.dirname(os.path.dirname(numpy.__file__))\n"
    program += "    found = 0\n    for path, _, files in os.walk(folder):\n        if 'numpy' in path: continue\n"
    program += "        for name in files:\n            try: found += bool(open(os.path.join(path, name)).read(1))\n"
    program += "            except (OSError, ValueError): pass\n    try: import pytest\n"
    program += "    except (ImportError, OSError): return found\n    return -1"
    lies = "def scale(a, k):\n    import numpy\n    class L(numpy.ndarray):\n"
    lies += "        __eq__ = lambda *v: numpy.array([True])\n"
    lies += "    return numpy.zeros(1).view(L)\ntotal = scale"
    assert packed([program], tests=[["assert f() == 0"]]) == [1.0]
    assert packed([lies], tests=[["assert scale([1], 2) == [2]", "assert scale([1], 2) == 2"]]) == [0.0]


def test_without_the_option_tests_that_import_it_are_unusable(verdict):
    assert verdict(ARRAYS, TESTS).status == "gold_unparsable"
    assert verdict(ARRAYS, [TESTS[2]]).value == 0.0


def test_a_package_that_is_not_installed():
    with pytest.raises(UserError, match="pip install"):
        ladder.command("bubblewrap", ["no_such_package"])
