"""How many CPUs this process may use; in a container or a batch job, fewer than the machine has."""

from __future__ import annotations

import os
from pathlib import Path

CGROUPS = Path("/sys/fs/cgroup")
OWN_CGROUP = Path("/proc/self/cgroup")


def available_cpus() -> float:
    """The smaller of the CPUs in this process's affinity mask and the CPU quota of its control group."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min([float(allowed), *quotas(CGROUPS, _own_group())])


def quotas(root: Path, own: str) -> list[float]:
    """CPU quotas of the control group `own` and its parents, those that set a limit (cgroup v2 and v1)."""
    group = root / own.strip("/")
    folders = [folder for folder in (group, *group.parents) if folder.is_relative_to(root)]
    limits = [_read(folder / "cpu.max") for folder in folders]
    limits.append(_read(root / "cpu" / "cpu.cfs_quota_us") + _read(root / "cpu" / "cpu.cfs_period_us"))
    return [int(limit[0]) / int(limit[1]) for limit in limits if len(limit) == 2 and limit[0].isdecimal()]


def _own_group() -> str:
    lines = OWN_CGROUP.read_text().splitlines() if OWN_CGROUP.exists() else []
    return next((line.removeprefix("0::") for line in lines if line.startswith("0::")), "")


def _read(file: Path) -> list[str]:
    try:
        return file.read_text().split()
    except OSError:  # no such limit, or not readable by this process
        return []
