"""How many CPUs this process may use: fewer than the machine has, in a container or a batch system's job."""

from __future__ import annotations

import os
from pathlib import Path

CGROUPS = Path("/sys/fs/cgroup")
OWN_CGROUP = Path("/proc/self/cgroup")


def available_cpus() -> float:
    """The CPUs that this process may run on, or the share of them that its control group grants, whichever is less."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min([float(allowed), *quotas(CGROUPS, _own_group())])


def quotas(root: Path, own: str) -> list[float]:
    """CPUs granted by the control group `own` and those that it stands in, as far as they set a limit (versions 2 and 1)."""
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
    except OSError:  # no such limit, or none that we may see
        return []
