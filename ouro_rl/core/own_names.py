"""Keeps the top-level names of our packages even if the user has modules with the same names, such as `rewards.py`.

In processes of the command line these names mean our packages; users refer to their modules as files
(`rewards.py:f`)."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from ouro_rl.core.errors import UserError

OWN = ("ouro_rl", "rewards", "rollout_workers")
ROOT = str(Path(__file__).resolve().parents[2])
"""The folder that contains our packages."""


def pin_own_packages() -> None:
    """Import our packages from this file's installation; from then on their names are fixed in this process, whatever
    `sys.path` says."""
    pinning_hook()()


def working_directory_clashes() -> bool:
    """Whether the working directory has modules that hide ours in a process that puts it first on `sys.path`."""
    cwd = os.getcwd()
    return os.path.realpath(cwd) != os.path.realpath(ROOT) and bool(rivals_in(cwd))


def pinning_hook() -> Callable[[], None]:
    """`pin_own_packages` as a nested function: it is pickled by value, so it also works in a process that could not
    import this module."""
    root, names = ROOT, OWN

    def pin() -> None:
        import importlib
        import sys

        sys.path.insert(0, root)
        for name in names:
            importlib.import_module(name)
        sys.path.remove(root)

    return pin


def rivals_in(folder: str) -> list[str]:
    """Modules in `folder` that have the names of our packages."""
    base = Path(folder or ".")
    return [f"{name}{end}" for name in OWN for end in (".py", "") if (base / f"{name}{end}").exists()]


def refuse_clash(module: str, key: str) -> None:
    """Raise UserError if `module` is one of our packages by name and the working directory has another of that name."""
    name = module.partition(".")[0]
    rival = next((rival for rival in rivals_in(os.getcwd()) if rival in (name, f"{name}.py")), None)
    if working_directory_clashes() and rival is not None:
        raise UserError(
            f"{key}: {name} is a package of ouro-rl, and {rival} in the working directory has the same name; "
            f"name the function by its file (path/to/file.py:function), or rename {rival}"
        )
