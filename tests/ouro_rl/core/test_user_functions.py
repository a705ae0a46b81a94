"""Loading user functions by name: one loader for all callers, with errors of at most two lines that name the fix."""

from __future__ import annotations

import pytest

from ouro_rl.core.errors import UserError
from ouro_rl.core.user_functions import load_function


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text("calls = []\ndef length(text):\n    calls.append(text)\n    return len(calls)\n")
    (tmp_path / "kinds.py").write_text("class Score:\n    def __call__(self, completions): ...\n")
    (tmp_path / "broken.py").write_text("\n\nimport nowhere\n")
    (tmp_path / "syntax.py").write_text("def f(:\n")
    (tmp_path / "quits.py").write_text("raise SystemExit('bye')\n")
    (tmp_path / "loader_test_module.py").write_text("def here():\n    return 'here'\n")
    return tmp_path


def test_a_function_is_loaded_once_and_shares_its_file_with_others(folder):
    first = load_function("mine.py:length", "reward")
    assert first is load_function("mine.py:length", "reward")
    first("a")
    assert load_function(str(folder / "mine.py") + ":length", "rollout.logit_processors")("b") == 2


def test_a_module_of_the_working_directory_is_found(folder):
    assert load_function("loader_test_module:here", "reward")() == "here"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("mine.py:", "k 'mine.py:': no function is named; name it as module.path:function or path/to/file.py:function"),
        ("length", "k 'length': no module is named; name it as module.path:function or path/to/file.py:function"),
        ("mine.py:lenth", "k 'mine.py:lenth': mine.py has no function 'lenth'; did you mean 'length'?"),
        ("mine.py:zzz", "k 'mine.py:zzz': mine.py has no function 'zzz'; check the name after the colon"),
        ("mine.py:calls", "k 'mine.py:calls': 'calls' is of type list, not a function"),
        ("kinds.py:Score", "k 'kinds.py:Score': 'Score' is a class; name a function, or an object: x = Score()"),
        ("gone.py:f", "k 'gone.py:f': there is no file gone.py (looked in "),
        (
            "broken.py:f",
            "k 'broken.py:f' cannot be imported: ModuleNotFoundError: No module named 'nowhere' (broken.py:3)\n"
            "  fix broken.py so that `python broken.py` works",
        ),
        ("broken:f", "\n  fix broken so that `python -c 'import broken'` works"),
        ("syntax.py:f", "(syntax.py, line 1)"),
        ("quits.py:f", "SystemExit: bye (quits.py:1)"),
        ("no_such_module:f", "\n  run from the folder that holds no_such_module, or name the file"),
    ],
)
def test_errors_name_the_fix(folder, name, message):
    with pytest.raises(UserError) as error:
        load_function(name, "k")
    assert message in str(error.value)
    assert str(error.value).count("\n") <= 1 and not str(error.value).endswith(".")
