"""The math example's data is what its generator writes, split like the arithmetic data, and can be graded."""

import importlib.util
import json

from ouro_rl.config.loader import load_config
from ouro_rl.config.train import TrainConfig
from ouro_rl.tasks.held_out import is_held_out
from rewards.math_grader.golds import check_golds
from tests.references.math_grading import grade_answer
from tests.references.places import CONFIGS


def load(name: str):
    spec = importlib.util.spec_from_file_location(name, CONFIGS / "math_tasks" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_files_are_what_the_generator_writes():
    for name, text in load("generate").files().items():
        assert (CONFIGS / "math_tasks" / name).read_text(encoding="utf-8") == text
        rows = [json.loads(line) for line in text.splitlines()]
        assert {is_held_out(row["problem"]) for row in rows} == {name == "heldout.jsonl"}
        assert check_golds([row["answer"] for row in rows]) == {}
        for row in rows[:100]:
            value = eval(row["problem"])
            assert grade_answer(f"\\boxed{{{value}}}", row["answer"], question=row["problem"]).value == 1.0, row
            assert grade_answer(f"\\boxed{{{value + 1}}}", row["answer"]).value == 0.0, row
            assert grade_answer(f"\\boxed{{{row['problem']}}}", row["answer"], question=row["problem"]).value == 0.0, (
                row
            )


def test_the_plug_in_and_the_config():
    completions = [
        [{"role": "assistant", "content": text}] for text in ("1+2=3\n3*4=12\n\\boxed{12}", "(1+2)*4=12", "12")
    ]
    assert load("small_steps").small_steps(completions=completions) == [1.0, 0.0, 0.0]
    config = load_config(TrainConfig, [CONFIGS / "math_example.yaml"], [])
    assert [reward.name.rpartition(":")[2] for reward in config.rewards.functions] == [
        "math",
        "format",
        "length",
        "small_steps",
    ]
