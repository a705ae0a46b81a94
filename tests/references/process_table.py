"""The process table (Linux)."""

import os
from pathlib import Path


def processes(root: int | None = None) -> set[int]:
    """All descendants of a process, by default of this one."""
    root = root or os.getpid()
    parents = {}
    for entry in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = entry.read_text().rpartition(") ")[2].split()
            parents[int(entry.parent.name)] = int(fields[1])
        except OSError:
            continue
    found, size = {root}, 0
    while size != len(found):
        size = len(found)
        found |= {pid for pid, parent in parents.items() if parent in found}
    return found - {root}


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0] != "Z"
    except OSError:
        return False
