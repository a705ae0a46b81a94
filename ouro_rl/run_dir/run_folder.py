"""The folder of a run for as long as the run lasts: opened, locked, and removed again if nothing came of it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ouro_rl.config.train import TrainConfig
from ouro_rl.run_dir.open_or_resume import PromptsRecord, open_run_folder, run_to_resume
from ouro_rl.run_dir.run_dir import RunDir
from ouro_rl.run_dir.run_lock import RunLock


@contextmanager
def run_folder(
    config: TrainConfig, *, resume: bool, prompts: PromptsRecord, processes: int
) -> Iterator[tuple[RunDir, Path | None]]:
    """The run's folder and the checkpoint to resume from, as `open_run_folder` gives them; locked in the meantime.

    A new run that fails before its first update leaves no folder behind, so that the next start has the same name."""
    lock = RunLock(run_to_resume(config).path) if resume else None
    if lock is not None:
        lock.acquire()  # before anything is read: a live run may be about to write it
    try:
        run_dir, checkpoint = open_run_folder(config, resume=resume, prompts=prompts, processes=processes)
        if lock is None:
            lock = RunLock(run_dir.path)
            lock.acquire()
        try:
            yield run_dir, checkpoint
        except BaseException:
            if not resume:
                lock.release()
                run_dir.remove_if_nothing_ran()
            raise
    finally:
        if lock is not None:
            lock.release()
