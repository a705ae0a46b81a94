"""The software versions stored in records."""

from __future__ import annotations

import platform
from collections.abc import Iterable
from importlib.metadata import version

import ouro_rl


def versions_of(packages: Iterable[str]) -> dict[str, str]:
    """The versions of ouro-rl, of Python and of some installed packages."""
    own = {"ouro-rl": ouro_rl.__version__, "python": platform.python_version()}
    return own | {package: version(package) for package in packages}
