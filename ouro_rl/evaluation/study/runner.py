"""Runs a study: every run in processes of its own, several at a time; a finished run's result is kept at once.

A run is `python -m ouro_rl train`, then `python -m ouro_rl.evaluation.study.measure`, each with one thread. A killed
study loses at most the runs in progress. A run that fails is reported and does not stop the others.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ouro_rl.config.loader import dump_config
from ouro_rl.core.atomic_write import write_atomically
from ouro_rl.core.errors import RunError, UserError
from ouro_rl.evaluation.study.files import (
    CONFIG_FILE,
    FIGURES_FILE,
    MEASURE_LOG,
    TASK_FILE,
    TRAIN_FILE,
    TRAIN_LOG,
    TRAINED_FILE,
)
from ouro_rl.evaluation.study.plan import Job, Run, Study, trained_checkpoint, weights_hash
from ouro_rl.evaluation.study.state import State, state_of, states_of
from ouro_rl.run_dir.open_or_resume import own_commit
from ouro_rl.run_dir.run_dir import RunDir, last_step_and_gap
from ouro_rl.run_dir.study_result import RuleFigures, StudyResult, write_result
from ouro_rl.run_dir.versions import versions_of

MEASURE = "ouro_rl.evaluation.study.measure"
CURVES = (
    "reward/mean", "depth/mean", "compute/loops_per_answer", "completion/length_mean", "gate/price", "gate/entropy",
)  # fmt: skip
"""Metrics of every update that a result keeps, if the run has them."""
CURVE_DIGITS = 4


class Processes:
    """The child processes that run now, so that all can be ended at once."""

    def __init__(self) -> None:
        self._live: set[subprocess.Popen] = set()
        self._lock = threading.Lock()
        self.stopped = False

    def run(self, command: Sequence[str], log: Path, lock: int) -> None:
        """Run a command to its end, with one thread; its output goes to `log`. The process holds the file descriptor
        `lock`, too: if this one is killed, the run is still locked until that one ends.

        Raises RunError with the output's last line if it fails."""
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
        with log.open("a", encoding="utf-8") as output:
            with self._lock:
                if self.stopped:
                    raise RunError("stopped")
                # A session of its own: Ctrl-C reaches this process alone, which then ends them all.
                process = subprocess.Popen(
                    command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, env=environment,
                    start_new_session=True, pass_fds=(lock,),
                )  # fmt: skip
                self._live.add(process)
            try:
                status = process.wait()
            finally:
                with self._lock:
                    self._live.discard(process)
        if status:
            lines = log.read_text(encoding="utf-8", errors="replace").split("\n")
            last = next((line.strip() for line in reversed(lines) if line.strip()), "no output")
            raise RunError(f"{last} (exit status {status}; see {log})")

    def stop(self) -> None:
        """End all processes, with their children, and start no more."""
        with self._lock:
            self.stopped = True
            for process in self._live:
                if process.poll() is None:
                    os.killpg(process.pid, signal.SIGKILL)


def run_study(study: Study, *, jobs: int, only: Sequence[str] = ()) -> bool:
    """Do every run of the plan that is not done, `jobs` at a time. Returns whether all of them are done now.

    Raises UserError like `states_of`."""
    states = states_of(study, only)
    results = {state.run.name: state.result for state in states if state.result is not None}
    pending = [state for state in states if not state.done]
    report = Reporter(total=len(states), done=len(results))
    for state in states:
        if state.done:
            print(f"  {state.run.name}: done already, at {state.run.result_path}")
    processes, failed, live = Processes(), set[str](), dict[Future[StudyResult], Run]()
    with ended_by_sigterm(), ThreadPoolExecutor(max_workers=jobs) as threads:
        try:
            while pending or live:
                for state in [state for state in pending if _ready(state.run, results, failed)]:
                    if len(live) == jobs:
                        break
                    pending.remove(state)
                    lost = [f"needs {need.name}, which failed" for need in state.run.needs if need.name in failed]
                    if why_not := [state.reason] if state.refused else lost:
                        report.failed(state.run, why_not[0])
                        failed.add(state.run.name)
                        continue
                    report.started(state)
                    needed = {need.arm: results[need.name] for need in state.run.needs}
                    live[threads.submit(perform, state.run, needed, processes)] = state.run
                if not live:
                    continue
                for future in wait(live, return_when=FIRST_COMPLETED).done:
                    run = live.pop(future)
                    try:
                        results[run.name] = future.result()
                        report.finished(results[run.name], run)
                    except (RunError, UserError, OSError) as error:
                        failed.add(run.name)
                        report.failed(run, str(error))
        finally:
            processes.stop()
    return not failed


@contextmanager
def ended_by_sigterm() -> Iterator[None]:
    """Within it SIGTERM raises SystemExit, as Ctrl-C raises KeyboardInterrupt, so that child processes are ended."""

    def end(number: int, _frame: Any) -> None:
        raise SystemExit(128 + number)

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _ready(run: Run, results: dict[str, StudyResult], failed: set[str]) -> bool:
    """Whether everything that a run needs has ended."""
    return all(need.name in results or need.name in failed for need in run.needs)


def perform(run: Run, needed: dict[str, StudyResult], processes: Processes) -> StudyResult:
    """Train, if it is not done, measure, and write the result. Raises RunError if a process fails or if another
    process is at this run."""
    state = state_of(run, needed)
    assert state.job is not None, "what it needs is done"
    with alone(run) as lock:
        minutes = train(state.job, processes, lock) if run.arm_config.train else 0.0
        started = time.monotonic()
        checkpoint = trained_checkpoint(run)
        if checkpoint is None:
            raise RunError(f"training left no checkpoint in {run.folder}")
        figures = measure(state.job, checkpoint, processes, lock)
        minutes += (time.monotonic() - started) / 60
        result = result_of(state.job, checkpoint, figures, minutes)
        write_result(run.result_path, result)
    return result


@contextmanager
def alone(run: Run) -> Iterator[int]:
    """Hold the run's lock, a file descriptor; raises RunError if another process has it."""
    lock = run.folder.with_suffix(".lock")
    lock.parent.mkdir(parents=True, exist_ok=True)
    with lock.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise RunError("another process is at this run; wait for it, or end it") from None
        yield file.fileno()


def train(job: Job, processes: Processes, lock: int) -> float:
    """Train from the beginning, unless this training has ended before. Returns its minutes."""
    run, marker = job.run, job.run.folder / TRAINED_FILE
    if marker.exists():
        record = json.loads(marker.read_text(encoding="utf-8"))
        if job.changed(record["settings"], parts=("train",)) is None and trained_checkpoint(run) is not None:
            return record["minutes"]
    if run.folder.exists():
        shutil.rmtree(run.folder)
    started = time.monotonic()
    config = job.config.model_copy(update={"eval": job.config.eval.model_copy(update={"source": None})})
    write_atomically(run.folder / TRAIN_FILE, [dump_config(config)])
    processes.run(
        [sys.executable, "-m", "ouro_rl", "train", str(run.folder / TRAIN_FILE)], run.folder / TRAIN_LOG, lock
    )
    minutes = (time.monotonic() - started) / 60
    run_dir = RunDir(run.folder / "run")
    if run_dir.rollouts_dir.exists():
        shutil.rmtree(run_dir.rollouts_dir)  # the largest part, which no figure is made from
    write_atomically(marker, [json.dumps({"settings": job.settings, "minutes": minutes}), "\n"])
    return minutes


def measure(job: Job, checkpoint: Path, processes: Processes, lock: int) -> dict[str, Any]:
    """The figures of a checkpoint, as `ouro_rl.evaluation.study.measure` writes them."""
    folder = job.run.folder
    (folder / FIGURES_FILE).unlink(missing_ok=True)
    write_atomically(folder / CONFIG_FILE, [dump_config(job.config)])
    task = {
        "model": str(checkpoint),
        "rules": [asdict(rule) for rule in job.rules],
        "difficulty": job.run.study.config.evaluation.difficulty,
        "seed": job.run.seed,
    }
    write_atomically(folder / TASK_FILE, [json.dumps(task), "\n"])
    processes.run([sys.executable, "-m", MEASURE, str(folder)], folder / MEASURE_LOG, lock)
    return json.loads((folder / FIGURES_FILE).read_text(encoding="utf-8"))


def result_of(job: Job, checkpoint: Path, figures: dict[str, Any], minutes: float) -> StudyResult:
    """The record of a finished run."""
    run = job.run
    return StudyResult(
        study=run.study.name,
        arm=run.arm,
        seed=run.seed,
        config_hash=job.config_hash,
        settings=job.settings,
        checkpoint=weights_hash(str(checkpoint)),
        served=job.served.label(),
        minutes=round(minutes, 2),
        training=training_record(RunDir(run.folder / "run")) if run.arm_config.train else {},
        difficulty=tuple(figures["difficulty"]),
        needed_loops=None if figures["needed_loops"] is None else tuple(figures["needed_loops"]),
        about={"versions": versions_of(("torch", "transformers", "trl")), "commit": own_commit()},
        rules=tuple(RuleFigures(**rule) for rule in figures["rules"]),
    )


def training_record(run_dir: RunDir) -> dict[str, Any]:
    """What a result keeps of the training run's metrics."""
    rows = run_dir.read_metrics()
    steps, gap = last_step_and_gap(rows)
    curves = {name: [row.get(name) for row in rows] for name in CURVES if any(name in row for row in rows)}
    return {
        "steps": steps,
        "logp_gap_max": gap,
        "curves": {
            name: [None if value is None else round(value, CURVE_DIGITS) for value in values]
            for name, values in curves.items()
        },
    }


class Reporter:
    """Says how a study proceeds."""

    def __init__(self, *, total: int, done: int) -> None:
        self.total, self.done = total, done

    def started(self, state: State) -> None:
        why = f" ({state.reason})" if state.result is None and state.reason.startswith("its ") else ""
        print(f"  {state.run.name}: started{why}", flush=True)

    def finished(self, result: StudyResult, run: Run) -> None:
        self.done += 1
        served = result.served_figures
        print(
            f"  {run.name}: {served.accuracy:.1%} at {served.loops_per_answer:.1f} loops per answer ({served.rule}), "
            f"in {result.minutes:.1f} minutes; {self.done} of {self.total} done",
            flush=True,
        )

    def failed(self, run: Run, reason: str) -> None:
        print(f"  {run.name}: FAILED: {reason}", file=sys.stderr, flush=True)
