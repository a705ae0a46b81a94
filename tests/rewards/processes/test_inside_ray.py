"""Rewards inside Ray actors of every kind, and in a process that must not be forked."""

import subprocess
import sys

import pytest

from tests.references.patience import HANG_S
from tests.references.places import REPOSITORY

ACTORS = """
import asyncio, sys
sys.path.insert(0, REPOSITORY)
import ray
ray.init(num_cpus=1, include_dashboard=False, log_to_driver=False, runtime_env={"env_vars": {"PYTHONPATH": REPOSITORY}})
HANG = "\\\\boxed{x^9+\\\\sin(x)y^4+3=e^{xyz}}", "x^7+3x^5-2x+1=0"

class Base:
    def __init__(self):
        from rewards.math_grader.reward import MathReward
        self.math = MathReward(timeout_s=2.0, workers=2)

class Sync(Base):
    def score(self, completion, gold):
        return self.math([completion], answer=[gold])[0]

class Async(Base):
    async def score(self, completion, gold):
        return self.math([completion], answer=[gold])[0]

class Polite(Base):
    async def score(self, completion, gold):
        return (await asyncio.to_thread(self.math, [completion], answer=[gold]))[0]

for kind, options in ((Sync, {}), (Sync, {"max_concurrency": 4}), (Async, {}), (Polite, {"max_concurrency": 4})):
    actor = ray.remote(num_cpus=0.2, **options)(kind).remote()
    ray.get(actor.score.remote("\\\\boxed{x+1}", "1+x"))
    values = ray.get([actor.score.remote("\\\\boxed{x+%d}" % i, "2+x") for i in range(4)])
    print(kind.__name__, values, ray.get(actor.score.remote(*HANG)))
    ray.kill(actor)
"""

PARENT = """
import os, sys, threading, time
sys.path.insert(0, REPOSITORY)
import torch
torch.set_num_threads(2)
(torch.randn(400, 400) @ torch.randn(400, 400)).sum()  # starts the thread pool that a fork would break
lock = threading.Lock()
lock.acquire()  # a fork would inherit it locked
threading.Thread(target=time.sleep, args=(60,), daemon=True).start()
from rewards.math_grader.reward import MathReward
math = MathReward(timeout_s=20.0, workers=2)
print(math(["\\\\boxed{x+1}", "\\\\boxed{x+2}"], answer=["1+x", "1+x"]))
child = os.fork()  # the forked copy starts workers of its own, and leaves its parent's alone
if child == 0:
    good = math(["\\\\boxed{y+1}"], answer=["1+y"]) == [1.0]
    math.close()
    os._exit(0 if good else 1)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
print(math(["\\\\boxed{z+1}"], answer=["1+z"]))
math.close()
"""


def run(code, tmp_path):
    command = [sys.executable, "-c", f"REPOSITORY = {str(REPOSITORY)!r}\n{code}"]
    return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=2 * HANG_S)


@pytest.mark.slow
def test_inside_actors_of_every_kind(tmp_path):
    done = run(ACTORS, tmp_path)
    assert done.returncode == 0, done.stderr
    kinds = ["Sync", "Sync", "Async", "Polite"]
    assert done.stdout.splitlines() == [f"{kind} [0.0, 0.0, 1.0, 0.0] None" for kind in kinds]


def test_in_a_process_that_must_not_be_forked(tmp_path):
    done = run(PARENT, tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["[1.0, 0.0]", "0", "[1.0]"]
