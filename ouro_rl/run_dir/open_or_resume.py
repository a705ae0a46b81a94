"""Chooses the folder of a training run, and where an earlier run is resumed from."""

from __future__ import annotations

import logging
import os
import re
import subprocess
from pathlib import Path
from typing import Any

from ouro_rl.config.train import TrainConfig
from ouro_rl.config.yaml12 import to_yaml
from ouro_rl.core.atomic_write import write_atomically
from ouro_rl.core.errors import UserError
from ouro_rl.core.paths import check_writable
from ouro_rl.run_dir.manifest import damage, read_manifest
from ouro_rl.run_dir.resume_rules import SETS_OF_PROMPTS, Changes, change_evaluation, refuse_other_config
from ouro_rl.run_dir.run_dir import RunDir, step_of
from ouro_rl.run_dir.run_lock import refuse_live_run
from ouro_rl.run_dir.versions import versions_of

logger = logging.getLogger(__name__)

PromptsRecord = dict[str, Any]
"""What tells the prompts of a run from others: their `count` and a hash (`ouro_rl/data/fingerprint.py`)."""


def open_run_folder(
    config: TrainConfig, *, resume: bool, prompts: PromptsRecord | None = None, processes: int = 1
) -> tuple[RunDir, Path | None]:
    """The run's folder and the checkpoint to resume from, if any. With `resume`, the caller holds the folder's lock.

    Without `resume`, a folder that is not empty is never used: the run goes to the next free `dir-2`, `dir-3`, ...
    With it, what came after the newest whole checkpoint is removed, and the run's record gets the config of now.
    Raises UserError if there is nothing to resume, or if the run began with another configuration or other prompts."""
    if not resume:
        return _new_folder(config, prompts), None
    run_dir = run_to_resume(config)
    changes = refuse_other_config(run_dir, config)
    check_prompts(run_dir, prompts, changes)
    checkpoint, passed_over = newest_whole(run_dir)
    check_start(run_dir, checkpoint, passed_over, processes)
    for path, reason in passed_over:
        aside = run_dir.set_aside(path)
        logger.warning("%s is passed over: %s; kept as %s", path, reason, aside.name)
    for key, (before, now) in changes.items():
        logger.warning("Resuming with %s %s instead of %s", key, now, before)
    done = step_of(checkpoint) if checkpoint else 0
    logger.warning("Resuming %s after update %d", run_dir.path, done)
    run_dir.truncate_after(done)
    if change_evaluation(changes):
        run_dir.summary_path.unlink(missing_ok=True)  # its figures are of another evaluation; they are taken again
    _record_resume(run_dir, config, done, changes, prompts)
    return run_dir, checkpoint


def check_resume(config: TrainConfig, processes: int) -> None:
    """What can be told of `--resume` at once: raises the errors of `open_run_folder` but those that need files to be
    read, or UserError if the run is live. Says if a later run has another folder. Changes nothing."""
    run_dir = run_to_resume(config)
    refuse_live_run(run_dir.path)
    refuse_other_config(run_dir, config)
    check_start(run_dir, *newest_whole(run_dir, thorough=False), processes)
    if later := later_folder(run_dir.path):
        logger.warning("%s is resumed, but a later run is in %s: to resume that one, set run.dir", run_dir.path, later)


def _new_folder(config: TrainConfig, prompts: PromptsRecord | None) -> RunDir:
    check_writable(config.run.dir, "run.dir")
    path, number = config.run.dir, 1
    named = Path(os.path.abspath(path))  # `.` and `..` have no name to add a number to
    while path.exists() and any(path.iterdir()):
        if not named.name:
            raise UserError(f"run.dir {config.run.dir}: is the root of the file system; name a folder in it")
        number += 1
        path = (named if path.name in ("", "..") else config.run.dir).with_name(f"{named.name}-{number}")
    if path != config.run.dir:
        print(f"{config.run.dir} holds an earlier run; this one goes to {path}.")
    run_dir = RunDir(path)
    try:
        write_atomically(run_dir.config_path, [to_yaml(record_of(config, prompts))])
    except OSError as error:
        raise UserError(f"run.dir: {path} cannot be written ({error.strerror}); give a writable folder") from error
    return run_dir


def run_to_resume(config: TrainConfig) -> RunDir:
    """The run in `run.dir`. Raises UserError if there is none."""
    run_dir = RunDir(config.run.dir)
    if not run_dir.config_path.exists():
        raise UserError(
            f"--resume: {run_dir.path} holds no run;\n  start without --resume, or set run.dir to the run's folder"
        )
    return run_dir


def later_folder(folder: Path) -> Path | None:
    """The folder of the latest run that began when `folder` was already taken, `folder-N`; or None."""
    folder = folder.absolute()
    name = re.compile(re.escape(folder.name) + r"-(\d+)")
    found = [(int(match[1]), path) for path in folder.parent.glob("*") if (match := name.fullmatch(path.name))]
    runs = [path for _, path in sorted(found) if RunDir(path).config_path.exists()]
    return runs[-1] if runs else None


# --- where to resume from ---------------------------------------------------------------------------------------------


def newest_whole(run_dir: RunDir, *, thorough: bool = True) -> tuple[Path | None, list[tuple[Path, str]]]:
    """The newest whole checkpoint, or None; and the newer ones that are passed over, each with the reason."""
    passed_over: list[tuple[Path, str]] = []
    for path in reversed(run_dir.checkpoints()):
        reason = damage(path, thorough=thorough)
        if reason is None:
            return path, passed_over
        passed_over.append((path, reason))
    return None, passed_over


def check_start(
    run_dir: RunDir, checkpoint: Path | None, passed_over: list[tuple[Path, str]], processes: int = 1
) -> None:
    """Raise UserError if resuming would begin again and throw away what the run has done, or if the checkpoint is of
    another number of processes."""
    rows = run_dir.read_metrics()
    if checkpoint is None and (rows or passed_over):
        have = f"{passed_over[0][0].name}: {passed_over[0][1]}" if passed_over else "none was written yet"
        last = f"{rows[-1]['step']} updates" if rows else "a checkpoint"
        raise UserError(
            f"--resume: {run_dir.path} has {last}, but no whole checkpoint to go on from ({have});\n"
            "  start without --resume, which takes another folder, or delete this one"
        )
    if checkpoint is not None and (wrote := read_manifest(checkpoint)["processes"]) != processes:
        raise UserError(
            f"--resume: the number of processes was {wrote} and is now {processes};\n"
            f"  start as many as before: each has its own random state in {checkpoint}"
        )


def check_prompts(run_dir: RunDir, prompts: PromptsRecord | None, changes: Changes) -> None:
    """Raise UserError if the run began with other prompts than these, although the config names the same ones. Where a
    changed limit may leave others out, that is only said."""
    began = _about(run_dir).get("prompts")
    if began is None or prompts is None or began == prompts:
        return
    if limits := sorted(SETS_OF_PROMPTS & changes.keys()):
        logger.warning(
            "The prompts are not those that the run began with (%d then, %d now), as far as can be told because of %s",
            began["count"], prompts["count"], ", ".join(limits),
        )  # fmt: skip
        return
    raise UserError(
        f"--resume: the prompts are not those that the run in {run_dir.path} began with "
        f"({began['count']} then, {prompts['count']} now; hash {began['sha256'][:8]}, now {prompts['sha256'][:8]}):\n"
        "  data.source, its columns, or the tokenizer have other content than then;\n"
        "  restore them, or start a new run without --resume"
    )


# --- the record of a run ----------------------------------------------------------------------------------------------


def record_of(config: TrainConfig, prompts: PromptsRecord | None = None) -> dict[str, Any]:
    """The content of `config.yaml`: the whole configuration; under `about` versions, commit, and the prompts' hash."""
    about = _software() | ({"prompts": prompts} if prompts else {})
    return {**config.model_dump(mode="json"), "about": about}


def _record_resume(
    run_dir: RunDir, config: TrainConfig, step: int, changes: Changes, prompts: PromptsRecord | None
) -> None:
    """Record the config of now, and under `about.resumed` what it was before."""
    about = _about(run_dir)
    entry = {"after_step": step, **_software()}
    if changes:
        entry["changes"] = {key: {"before": before, "now": now} for key, (before, now) in changes.items()}
    about["resumed"] = [*about.get("resumed", []), entry]
    if prompts:
        about["prompts"] = prompts
    write_atomically(run_dir.config_path, [to_yaml({**config.model_dump(mode="json"), "about": about})])


def evaluated_alike_since(run_dir: RunDir) -> int:
    """The update after which the run is evaluated as it is now: `eval` may change where a run is resumed."""
    since = 0
    for entry in _about(run_dir).get("resumed", []):
        is_change = change_evaluation(entry.get("changes", ()))
        since = entry["after_step"] if is_change else min(since, entry["after_step"])
    return since


def _about(run_dir: RunDir) -> dict[str, Any]:
    return run_dir.read_config().get("about") or {}


def _software() -> dict[str, Any]:
    versions = versions_of(("torch", "transformers", "trl", "accelerate", "ray", "python-flint"))
    return {"versions": versions, "commit": own_commit()}


def own_commit() -> str | None:
    """The commit of this code; None outside a repository or without git."""
    command = ["git", "-C", str(Path(__file__).parent), "rev-parse", "HEAD"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip() or None
    except FileNotFoundError:
        return None
