"""Chooses the folder of a training run, and checks whether an earlier run can be resumed."""

from __future__ import annotations

import subprocess
from pathlib import Path

from ouro_rl.config.train import TrainConfig
from ouro_rl.config.yaml12 import parse_yaml, to_yaml
from ouro_rl.core.atomic_write import write_atomically
from ouro_rl.core.errors import UserError
from ouro_rl.core.paths import check_writable, kind_of, put, same_place, texts_in
from ouro_rl.run_dir.run_dir import RunDir
from ouro_rl.run_dir.versions import versions_of

MAY_CHANGE = {
    ("run", "dir"), ("trainer", "steps"), ("trainer", "checkpoint_every"), ("trainer", "keep_checkpoints"),
    ("trainer", "logp_gap_limit"), ("rollout", "workers"), ("rollout", "worker_cpus"), ("rollout", "worker_gpus"),
    ("rollout", "max_batch"), ("rollout", "kv_memory_gib"), ("rollout", "prefill_rows"), ("rollout", "exact"),
    ("rewards", "workers"), ("rewards", "max_unscored"), ("model", "gradient_checkpointing"),
}  # fmt: skip
"""Keys that a resumed run may change: where it runs, how long, and within which limits. (Changing `steps` also changes
a learning-rate schedule that is not constant.)"""


def open_run_folder(config: TrainConfig, *, resume: bool) -> tuple[RunDir, Path | None]:
    """The run's folder and the checkpoint to resume from, if any.

    Without `resume`, a folder that is not empty is never used: the run goes to the next free `dir-2`, `dir-3`, ...
    Raises UserError if there is nothing to resume, or if the run began with another configuration."""
    if resume:
        run_dir = RunDir(config.run.dir)
        if not run_dir.config_path.exists():
            raise UserError(
                f"--resume: {run_dir.path} holds no run;\n  start without --resume, or set run.dir to the run's folder"
            )
        refuse_other_config(run_dir, config)
        return run_dir, run_dir.latest_checkpoint()
    check_writable(config.run.dir, "run.dir")
    path, number = config.run.dir, 1
    while path.exists() and any(path.iterdir()):
        number += 1
        path = config.run.dir.with_name(f"{config.run.dir.name}-{number}")
    if path != config.run.dir:
        print(f"{config.run.dir} holds an earlier run; this one goes to {path}.")
    run_dir = RunDir(path)
    try:
        write_atomically(run_dir.config_path, [to_yaml(record_of(config))])
    except OSError as error:
        raise UserError(f"run.dir: {path} cannot be written ({error.strerror}); give a writable folder") from error
    return run_dir, None


def record_of(config: TrainConfig) -> dict:
    """The content of `config.yaml`: the whole configuration, with versions and commit under `about`."""
    versions = versions_of(("torch", "transformers", "trl", "accelerate", "ray", "math-verify"))
    return {**config.model_dump(mode="json"), "about": {"versions": versions, "commit": own_commit()}}


def own_commit() -> str | None:
    """The commit of this code; None outside a repository or without git."""
    command = ["git", "-C", str(Path(__file__).parent), "rev-parse", "HEAD"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip() or None
    except FileNotFoundError:
        return None


def refuse_other_config(run_dir: RunDir, config: TrainConfig) -> None:
    """Raise UserError, naming the first differing key, unless the run began with this configuration."""
    recorded, asked = parse_yaml(run_dir.config_path.read_text(encoding="utf-8")), config.model_dump(mode="json")
    known = dict(texts_in(recorded))
    for at, text in texts_in(asked):
        kind = kind_of(at)
        if kind is not None and at in known and same_place(kind, known[at], text):
            put(recorded, at, text)
    for section, values in asked.items():
        for key, value in values.items():
            before = recorded.get(section, {}).get(key)
            if before != value and (section, key) not in MAY_CHANGE:
                raise UserError(
                    f"--resume: {section}.{key} is {value!r}, but the run in {run_dir.path} began with {before!r};\n"
                    "  give the same configuration, or start a new run without --resume"
                )
