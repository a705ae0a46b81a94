"""The machine that a benchmark runs on: its processor, and the share of CPU time taken by other guests (steal time)."""

from __future__ import annotations

import os
import platform
from pathlib import Path
from typing import Any


def describe_machine(threads: int, torch_version: str) -> dict[str, Any]:
    """Description of the machine; figures from different machines must not be compared."""
    return {
        "cpu": _cpu_name(),
        "cores": os.cpu_count(),
        "threads": threads,
        "bf16_instructions": [flag for flag in ("amx_bf16", "avx512_bf16") if flag in _cpu_info("flags")],
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "torch": torch_version,
        "load_before": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
    }


def cpu_ticks() -> tuple[int, int] | None:
    """(ticks in which a core was busy or runnable, those of them stolen by the host for other guests) since boot; None
    if the system does not report them."""
    try:
        _, user, nice, system, _, _, irq, softirq, stolen, *_ = Path("/proc/stat").read_text().split("\n", 1)[0].split()
    except (OSError, ValueError):
        return None
    busy = sum(map(int, (user, nice, system, irq, softirq, stolen)))
    return busy, int(stolen)


def stolen_share(before: tuple[int, int] | None, after: tuple[int, int] | None) -> float | None:
    """Fraction of busy or runnable core time between two `cpu_ticks` that went to other guests of a shared host."""
    if before is None or after is None or after[0] <= before[0]:
        return None
    return (after[1] - before[1]) / (after[0] - before[0])


def _cpu_name() -> str:
    return _cpu_info("model name") or platform.processor() or "unknown"


def _cpu_info(field: str) -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return ""
    return next((line.partition(":")[2].strip() for line in lines if line.startswith(field)), "")
