"""The Python interface: generation by the engine, grading, training with a function of one's own; and its notebook."""

from __future__ import annotations

import importlib.util
import json
import linecache
import re
from pathlib import Path
from typing import Any

import pytest

import ouro_rl
from ouro_rl.cli.interface import reward_name
from ouro_rl.core.errors import UserError
from rewards.spec import RewardSpec
from tests.references.places import REPOSITORY

REWARD = """
def longer_than_three(completions, answer, **columns):
    return [float(len(completion[0]["content"]) > 3) for completion in completions]
"""


def function_in(folder: Path) -> Any:
    """A reward in a file of its own, which another process imports in no time."""
    (folder / "my_reward.py").write_text(REWARD)
    spec = importlib.util.spec_from_file_location("my_reward", folder / "my_reward.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.longer_than_three


def test_generation_is_the_engines_and_the_seed_fixes_it(random_checkpoint: Path) -> None:
    with ouro_rl.load(random_checkpoint) as policy:
        rule = ouro_rl.ExitRule(kind="sample")
        asked = dict(samples=3, max_new_tokens=6, temperature=1.0, exit_rule=rule)
        groups = policy.generate(["1+1", [{"role": "user", "content": "2+2"}]], **asked)
        assert [len(group) for group in groups] == [3, 3]
        assert all(len(one.depths) == len(one.rollout.completion_ids) <= 6 for group in groups for one in group)
        assert groups == policy.generate(["1+1", "2+2"], **asked) != policy.generate(["1+1", "2+2"], seed=1, **asked)
        six = ouro_rl.ExitRule(kind="fixed", value=6)
        deep = policy.generate(["1+1"], max_new_tokens=2, exit_rule=six, max_depth=6)
        assert set(deep[0][0].depths) == {6}
        with pytest.raises(UserError, match="a question is empty"):
            policy.generate(["1", ""])
        with pytest.raises(UserError, match="depth"):
            policy.generate(["1"], exit_rule=ouro_rl.ExitRule(kind="fixed", value=9))


def test_grading() -> None:
    found = ouro_rl.grade(["so \\boxed{2}", "\\boxed{3}", ""], ["2", "2", "2"])
    assert [(verdict.value, verdict.status) for verdict in found] == [
        (1.0, "correct"), (0.0, "wrong"), (0.0, "no_answer"),
    ]  # fmt: skip


def test_training_with_a_function(random_checkpoint: Path, tmp_path: Path) -> None:
    config = tmp_path / "job.yaml"
    config.write_text(
        f"model: {{path: {random_checkpoint}}}\nrollout: {{max_new_tokens: 6}}\n"
        "trainer: {prompts_per_step: 2, group_size: 2, micro_batch: 4, steps: 1}\n"
    )
    summary = ouro_rl.train(config, "data.limit=8", run_dir=tmp_path / "run", reward=function_in(tmp_path))
    assert summary["steps"] == 1
    (row,) = map(json.loads, (tmp_path / "run" / "metrics.jsonl").read_text().splitlines())
    assert "reward/longer_than_three" in row
    with pytest.raises(UserError, match="run_dir .* exists"):
        ouro_rl.train(config, run_dir=tmp_path / "run")


def test_functions_that_another_process_can_find(tmp_path: Path) -> None:
    assert reward_name("math") == "math"
    assert reward_name(function_in(tmp_path)) == f"{tmp_path / 'my_reward.py'}:longer_than_three"
    for local in (lambda completions: [], Path.cwd, RewardSpec("math")):
        with pytest.raises(UserError, match="top level of a file"):
            reward_name(local)


def test_a_function_of_a_notebook_is_written_to_a_file() -> None:
    source = "def of_a_cell(completions, **columns):\n    return [1.0 for _ in completions]\n"
    name = "/tmp/no such folder/cell.py"
    linecache.cache[name] = (len(source), None, source.splitlines(keepends=True), name)  # as IPython does
    space: dict = {}
    exec(compile(source, name, "exec"), space)
    (verdict,) = ouro_rl.grade(["x"], ["y"], reward=reward_name(space["of_a_cell"]))
    assert verdict.value == 1.0
    with pytest.raises(UserError, match="its source is not to be found"):
        exec("def unknown(completions):\n    return []\n", space)
        reward_name(space["unknown"])


def test_the_notebook_has_the_lines_of_the_document_and_they_run(monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    cells = json.loads((REPOSITORY / "docs/notebook.ipynb").read_text())["cells"]
    codes = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    shown = re.findall(r"```python\n(.*?)```", (REPOSITORY / "docs/python.md").read_text(), re.DOTALL)
    assert "".join("".join(codes).split()) == "".join("".join(shown).split())
    monkeypatch.chdir(REPOSITORY)
    space: dict = {}
    for code in codes[:2]:  # the last one trains: see above
        exec(code, space)
    assert "[" in capsys.readouterr().out and len(space["verdicts"]) == 4
