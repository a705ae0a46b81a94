"""A training job of a few updates on a model of a few thousand parameters."""

import json
import subprocess
import sys

import yaml

from ouro_rl.config.train import TrainConfig
from ouro_rl.run_dir.manifest import MANIFEST_FILE
from ouro_rl.run_dir.run_dir import RunDir
from tests.references.patience import HANG_S

REWARD = '''
def digits(prompts, completions, **columns):
    """The share of digits: something that a random model can learn."""
    texts = [completion[0]["content"] for completion in completions]
    return [sum(c.isdigit() for c in text) / max(1, len(text)) for text in texts]

def broken(prompts, completions, **columns):
    raise KeyError("gone")

def equal(prompts, completions, **columns):
    return [1.0 for _ in completions]

def some(prompts, completions, **columns):
    return [None if i % 4 < 3 and i % 2 else float(i) for i in range(len(completions))]

def of_texts(prompts, completions, **columns):
    return [float("1" in completion and isinstance(completion, str)) for completion in completions]

def first_digit(prompts, completions, **columns):
    """Often equal in a whole group."""
    return [float(completion[0]["content"][:1].isdigit()) for completion in completions]

calls = []

def breaks_later(prompts, completions, **columns):
    calls.append(1)
    if len(calls) > 8:  # a step is 4 groups
        raise KeyError("gone at last")
    return [float(len(calls) + i) for i in range(len(completions))]
'''


def config_of(checkpoint, run_dir, reward="digits", **changes):
    values = {
        "model": {"path": str(checkpoint)},
        "data": {"limit": 40, "operations": [2]},
        "rollout": {"max_new_tokens": 10},
        "rewards": {"functions": [{"name": f"{checkpoint}/rewards.py:{reward}"}, {"name": "math", "weight": 0.0}]},
        "gate": {"lr": 1e-2, "target_depth": 1.5},
        "trainer": {
            "steps": 3,
            "prompts_per_step": 4,
            "group_size": 4,
            "micro_batch": 8,
            "lr": 1e-2,
            "checkpoint_every": 2,
        },
        "eval": {"source": "arithmetic", "limit": 6, "operations": [2]},
        "run": {"dir": str(run_dir), "seed": 3},
    }
    for key, value in changes.items():
        section, name = key.split("__")
        values.setdefault(section, {})[name] = value
    return TrainConfig.model_validate(values, strict=False)


def deterministic(row):
    return {key: value for key, value in row.items() if not key.startswith(("time/", "tokens/s", "workers/busy"))}


def metrics_of(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def train_with_two_processes(config, path, *options):
    """`ouro-rl train` under torchrun, with two processes on the CPU; the config is written to `path`."""
    path.write_text(yaml.safe_dump(config.model_dump(mode="json")))
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command = [*launch, "-m", "ouro_rl", "train", str(path), *options]
    done = subprocess.run(command, capture_output=True, text=True, timeout=2 * HANG_S, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    newest = RunDir(config.run.dir).latest_checkpoint()
    assert json.loads((newest / MANIFEST_FILE).read_text())["processes"] == 2
