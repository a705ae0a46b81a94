"""The command line in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.references.patience import HANG_S, comes_true
from tests.references.places import REPOSITORY


def ouro_rl(*arguments: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "ouro_rl", *map(str, arguments)],
        cwd=cwd,
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
        timeout=HANG_S,
    )


def ouro_rl_timed(*arguments: str | Path, cwd: Path) -> tuple[subprocess.CompletedProcess[str], float]:
    """The same, and the seconds of processor time of this process and its own children."""
    command = [sys.executable, "-m", "ouro_rl", *map(str, arguments)]
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as errors:
        process = subprocess.Popen(command, cwd=cwd, env=environment(), stdout=out, stderr=errors)
        ended = os.WEXITED | os.WNOHANG | os.WNOWAIT
        if not comes_true(lambda: os.waitid(os.P_PID, process.pid, ended)):
            process.kill()
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        texts = [file.seek(0) or file.read() for file in (out, errors)]
    done = subprocess.CompletedProcess(command, process.returncode, *texts)
    return done, usage.ru_utime + usage.ru_stime


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"}
