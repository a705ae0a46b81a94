"""The code example: its tasks are correct, its data set is what the generator writes, and it trains."""

import itertools
import json
import random
import subprocess
import sys

import pytest

from ouro_rl.tasks.function_writing import all_tasks, demonstration, main, tasks
from rewards.code_grader.reward import CodeReward
from tests.references.patience import HANG_S
from tests.references.places import REPOSITORY
from tests.references.sandboxes import needs_any


def test_programs_compute_what_their_tasks_describe():
    rng = random.Random(0)
    assert len({task.text for task in all_tasks()}) == len(all_tasks()) > 1000
    for task in rng.sample(all_tasks(), 100):
        names = {}
        exec(task.program, names)
        for case in task.row(rng)["tests"]["cases"]:
            assert names["f"](*case["args"]) == case["expected"] == task.value(*case["args"])


def test_by_hand():
    [task] = [task for task in all_tasks() if task.text == "f(a,b): the larger of 3 times a and b"]
    assert task.program == "def f(a,b):\n return max(3*a,b)"
    assert [task.value(*pair) for pair in ((1, 2), (-1, 2), (0, -5))] == [3, 2, 0]


def test_what_is_held_out_is_never_trained_on():
    train = {task.text for task in itertools.islice(tasks(0, held_out=False), 3000)}
    held_out = {task.text for task in itertools.islice(tasks(0, held_out=True), 3000)}
    assert not train & held_out and len(train | held_out) == len(all_tasks())
    rows = (REPOSITORY / "configs/code_tasks/train.jsonl").read_text().splitlines()
    assert not held_out & {json.loads(row)["problem"] for row in rows}


def test_the_data_set_is_what_the_generator_writes(tmp_path):
    main(str(tmp_path / "train.jsonl"))
    assert (tmp_path / "train.jsonl").read_text() == (REPOSITORY / "configs/code_tasks/train.jsonl").read_text()


def test_the_reward_accepts_correct_programs_and_rejects_careless_ones():
    needs_any()
    rng = random.Random(1)
    chosen = list(itertools.islice(tasks(1, held_out=False), 30))
    tests = [task.row(rng)["tests"] for task in chosen]
    careless = [demonstration(task, 1.0, rng) for task in chosen]
    code = CodeReward(all_or_nothing=True)
    assert code([task.program for task in chosen], tests=tests) == [1.0] * 30
    assert sum(code(careless, tests=tests)) <= 1  # five test points may not reveal a mistake
    code.close()


@pytest.mark.slow
def test_it_trains_with_ray(tmp_path):
    needs_any()
    command = [sys.executable, "-m", "ouro_rl", "train", "configs/code_example.yaml", f"run.dir={tmp_path / 'run'}"]
    command += ["trainer.steps=3", "trainer.prompts_per_step=4", "trainer.micro_batch=32"]
    run = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False, timeout=2 * HANG_S)
    assert run.returncode == 0, run.stderr[-2000:]
    assert "sandbox: " in run.stderr
    steps = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert len(steps) == 3 and all(step["reward/unscored"] == 0 and step["logp_gap/max"] <= 1e-3 for step in steps)
    assert any(step["reward/code"] > 0 for step in steps)
