"""A user's modules may have the names of our packages: real processes in a folder with such modules."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.references.places import REPOSITORY

USERS = "raise SystemExit('a module of the user')\n"
REWARD = """
def f(completion, answer):
    return 0.5

def g(completion, answer):
    from rewards import more
"""
ASK_A_RAY_WORKER = """
from ouro_rl.core.own_names import pin_own_packages
pin_own_packages()
import ray
from rollout_workers.fleet.cluster import Cluster
from rollout_workers.fleet.settings import FleetSettings

def where():
    import rewards.registry
    import rollout_workers.worker
    return rewards.registry.__file__, rollout_workers.worker.__file__

cluster = Cluster(1, FleetSettings(cpus=0.5))
print(ray.get(ray.remote(where).options(num_cpus=0.5).remote()))
cluster.close()
"""


def run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments], cwd=folder, env={**os.environ, "PYTHONPATH": str(REPOSITORY)}, text=True,
        capture_output=True, check=False,
    )  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "rewards.py").write_text(REWARD)
    (tmp_path / "rollout_workers.py").write_text(USERS)
    (tmp_path / "other.py").write_text("from rewards import more\n")
    (tmp_path / "rows.jsonl").write_text(json.dumps({"completion": "x", "answer": "2"}) + "\n")
    return tmp_path


def test_a_reward_file_named_like_our_package_works(folder: Path) -> None:
    done = run(folder, "-m", "ouro_rl", "grade", "rows.jsonl", "--reward", "rewards.py:f")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["value"] == 0.5


@pytest.mark.parametrize(
    ("name", "taken"),
    [("rewards:f", "rewards.py"), ("rollout_workers.x:f", "rollout_workers.py"), ("other.py:f", "rewards.py")],
)
def test_a_name_clash_is_reported_in_one_line(folder: Path, name: str, taken: str) -> None:
    done = run(folder, "-m", "ouro_rl", "grade", "rows.jsonl", "--reward", name)
    assert done.returncode == 2 and len(done.stderr.splitlines()) == 1
    assert f"reward '{name}'" in done.stderr and f"{taken} in the working directory has the same name" in done.stderr


def test_ray_workers_import_our_packages(folder: Path) -> None:
    (folder / "ouro_rl.py").write_text(USERS)
    (folder / "script").mkdir()
    (folder / "script" / "ask.py").write_text(ASK_A_RAY_WORKER)
    done = run(folder, "script/ask.py")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count(str(REPOSITORY)) == 2
