"""Our packages' top-level names, also where a user has modules of the same names: `rewards.py` is a good name for one.

In the processes of the command line the names are ours; the user's modules are named as files (`rewards.py:f`)."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from ouro_rl.core.errors import UserError

OWN = ("ouro_rl", "rewards", "rollout_workers")
ROOT = str(Path(__file__).resolve().parents[2])
"""The folder that our packages stand in."""


def pin_own_packages() -> None:
    """Import our packages from where this file stands: from now on their names are theirs in this process, whatever its search path."""
    pinning_hook()()


def working_directory_clashes() -> bool:
    """Whether a process that puts the working directory first on its search path would find modules of our names there."""
    cwd = os.getcwd()
    return os.path.realpath(cwd) != os.path.realpath(ROOT) and bool(rivals_in(cwd))


def pinning_hook() -> Callable[[], None]:
    """What `pin_own_packages` does, for a process that may not find this file by its name: pickled by value, as functions in functions are."""
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
    """Modules of our names in a folder."""
    base = Path(folder or ".")
    return [f"{name}{end}" for name in OWN for end in (".py", "") if (base / f"{name}{end}").exists()]


def refuse_clash(module: str, key: str) -> None:
    """UserError when `module` is by its name one of ours, and the working directory has another one of that name."""
    name = module.partition(".")[0]
    rival = next((rival for rival in rivals_in(os.getcwd()) if rival in (name, f"{name}.py")), None)
    if working_directory_clashes() and rival is not None:
        raise UserError(
            f"{key}: {name} is a package of ouro-rl, and {rival} in the working directory has the same name; "
            "name a function by its file (path/to/file.py:function), or rename that"
        )
