"""The checks of `ouro-rl doctor`: one function per line of the screen, which returns a value and, if there is a
problem, its fix."""

from __future__ import annotations

import os
import platform
import shutil
import sys
import tempfile
import threading
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import ouro_rl
from ouro_rl.core.cpus import available_cpus
from ouro_rl.core.errors import UserError
from ouro_rl.core.lock import differences, installed_version
from ouro_rl.core.paths import path_option

PACKAGES = ("torch", "transformers", "trl", "accelerate", "ray", "datasets", "python-flint")
HUB = "https://huggingface.co"
HUB_SECONDS = 3.0
GIB = 2**30
LITTLE_SPACE = 1 * GIB
"""Folders with less free space are reported: checkpoints and Ray's files need some."""
LITTLE_MEMORY = 4 * GIB
"""Less is reported: the quickstart, with its trainer and two workers, takes about half of this."""
SWITCHES = (
    "OMP_",
    "GOMP_",
    "KMP_",
    "MKL_",
    "OURO_",
    "ATEN_CPU_CAPABILITY",
    "ONEDNN_MAX_CPU_ISA",
    "CUDA_VISIBLE_DEVICES",
    "RAY_ADDRESS",
)
"""Names or prefixes of environment variables that change speed, kernels or where a job runs."""
YES = {"1", "on", "yes", "true"}
"""Values, in any letter case, that Hugging Face libraries take for true."""


@dataclass(frozen=True)
class Finding:
    """One line of the screen: a value and, if there is one, the problem with its fix."""

    value: str
    problem: str | None = None


def our_version() -> Finding:
    return Finding(f"{ouro_rl.__version__}, from {_short(Path(ouro_rl.__file__).parent)}")


def python_version() -> Finding:
    return Finding(
        f"{platform.python_version()} on {platform.system()} {platform.machine()}, {_short(Path(sys.executable))}"
    )


def packages() -> Finding:
    versions = {name: installed_version(name) for name in PACKAGES}
    value = ", ".join(f"{name} {version or 'MISSING'}" for name, version in versions.items())
    missing = [name for name, version in versions.items() if version is None]
    return Finding(value, f"{', '.join(missing)}: not installed; run `pip install ouro-rl` again" if missing else None)


def lock() -> Finding:
    changed = differences()
    if not changed:
        return Finding("all packages have the versions that were tested together")
    texts = [f"{name} {installed} (tested: {locked})" for name, (locked, installed) in sorted(changed.items())]
    tested = " ".join(f"{name}=={locked}" for name, (locked, _) in sorted(changed.items()))
    return Finding(", ".join(texts), f"not the versions that were tested together; for those: pip install {tested}")


def processor() -> Finding:
    import torch

    from ouro_rl.bench.machine import describe_machine

    machine = describe_machine(torch.get_num_threads(), torch.__version__)
    level = torch.backends.cpu.get_cpu_capability()
    bf16 = ", ".join(machine["bf16_instructions"]) or "none"
    return Finding(f"{machine['cpu']}; torch computes at level {level}; bf16 instructions: {bf16}")


def kernels() -> Finding:
    from ouro_rl.kernels.cpu import select as cpu_kernels

    found, description = cpu_kernels.load()
    problem = "without the C kernels rollouts and training take several times as long; the reason is given above"
    return Finding(description, None if found else problem)


def sandbox() -> Finding:
    from rewards.sandbox import ladder

    try:
        return Finding(ladder.describe(ladder.choose_rung()).removeprefix("sandbox: "))
    except UserError as error:
        _, *reasons = str(error).splitlines()
        return Finding("none: the reward `code` will not run", "\n".join(line.strip() for line in reasons))


def gpu() -> Finding:
    import torch

    if not torch.cuda.is_available():
        if torch.version.cuda is None and shutil.which("nvidia-smi"):
            problem = "there is a driver (nvidia-smi), but this torch was built for CPUs; install a CUDA build"
            return Finding("none that torch can use", problem)
        return Finding("none: everything runs on the CPU")
    devices = [torch.cuda.get_device_properties(index) for index in range(torch.cuda.device_count())]
    names = ", ".join(f"{device.name} ({device.total_memory / GIB:.0f} GiB)" for device in devices)
    return Finding(f"{names}; torch for CUDA {torch.version.cuda}")


def hub() -> Finding:
    if os.environ.get("HF_HUB_OFFLINE", "").lower() in YES:
        return Finding("offline (HF_HUB_OFFLINE is set): models and data come from local folders and earlier downloads")
    url = os.environ.get("HF_ENDPOINT") or HUB
    answer = _head(url, HUB_SECONDS)
    if answer is None:
        return Finding(f"{url} answers")
    return Finding(
        f"{url}: {answer}",
        "local folders still work; for the hub set HTTPS_PROXY or HF_ENDPOINT, else HF_HUB_OFFLINE=1 to avoid waiting",
    )


def folders() -> Finding:
    home = Path(os.environ.get("XDG_CACHE_HOME") or path_option("~/.cache"))
    hugging_face = Path(os.environ.get("HF_HOME") or home / "huggingface")
    places = {
        "working directory": (Path(), "set run.dir to another folder"),
        "kernels' cache": (
            home / "ouro-rl",
            "set XDG_CACHE_HOME to a writable folder, or kernels are built at every start",
        ),
        "hub's cache": (hugging_face, "set HF_HOME to a writable folder, or nothing can be downloaded"),
        "temporary files": (Path(tempfile.gettempdir()), "set TMPDIR to a writable folder"),
    }
    values, problems = [], []
    for name, (path, fix) in places.items():
        state = place(path)
        values.append(f"{name} {_short(path.absolute())} ({state.value})")
        if state.problem:
            problems.append(f"{name}: {state.problem}; {fix}")
    return Finding("; ".join(values), "\n".join(problems) or None)


def place(path: Path) -> Finding:
    """Whether files can be created in a folder or its nearest existing parent. Tried out, because root ignores file
    modes."""
    there = next(folder for folder in (path.absolute(), *path.absolute().parents) if folder.exists())
    try:
        tempfile.TemporaryFile(dir=there).close()
    except OSError as error:
        return Finding("not writable", f"cannot be written ({error.strerror})")
    free = shutil.disk_usage(there).free
    return Finding(
        f"{free / GIB:.0f} GiB free", f"only {free / 2**20:.0f} MiB are free" if free < LITTLE_SPACE else None
    )


def memory() -> Finding:
    total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    limit = _container_memory()
    most = min(total, limit or total)
    text = f"{total / GIB:.1f} GiB" + (
        f", of which this container may use {limit / GIB:.1f} GiB" if limit and limit < total else ""
    )
    problem = "little; lower rollout.workers in configs (0 samples in the trainer's process)"
    return Finding(text, problem if most < LITTLE_MEMORY else None)


def cores() -> Finding:
    import torch

    load = f"; load {os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else ""
    return Finding(f"{available_cpus():g} of {os.cpu_count()}; torch uses {torch.get_num_threads()} threads{load}")


def environment() -> Finding:
    names = sorted(name for name in os.environ if name.startswith(SWITCHES))
    return Finding(", ".join(f"{name}={os.environ[name]}" for name in names) or "nothing relevant is set")


def programs() -> Finding:
    uses = {"git": "a run's commit is not recorded", "bwrap": "see sandbox"}
    return Finding("; ".join(f"{name}: {shutil.which(name) or f'none ({effect})'}" for name, effect in uses.items()))


CHECKS: dict[str, Callable[[], Finding]] = {
    "ouro-rl": our_version,
    "python": python_version,
    "packages": packages,
    "lock": lock,
    "processor": processor,
    "cores": cores,
    "memory": memory,
    "kernels": kernels,
    "gpu": gpu,
    "sandbox": sandbox,
    "hub": hub,
    "folders": folders,
    "programs": programs,
    "environment": environment,
}
"""The checks in the order of the screen."""


def _head(url: str, seconds: float) -> str | None:
    """Why a server cannot be reached, or None. Runs in a thread, because name resolution has no timeout."""
    result: list[str | None] = [f"no answer within {seconds:g} s"]

    def ask() -> None:
        try:
            urllib.request.urlopen(urllib.request.Request(url, method="HEAD"), timeout=seconds).close()
            result[0] = None
        except urllib.error.HTTPError as error:
            result[0] = f"answers {error.code} {error.reason}"
        except (OSError, ValueError) as error:
            result[0] = f"no access ({getattr(error, 'reason', error)})"

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(seconds)
    return result[0]


def _container_memory() -> int | None:
    """The memory limit of this process's control group in bytes, if there is one."""
    for file in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        try:
            text = Path(file).read_text().strip()
        except OSError:
            continue
        return int(text) if text.isdecimal() else None
    return None


def _short(path: Path) -> str:
    """A path with `~` for the home folder, so that a bug report does not reveal the user's name."""
    home = os.environ.get("HOME", "").rstrip("/")
    return f"~{str(path)[len(home) :]}" if home and path.is_relative_to(home) else str(path)
