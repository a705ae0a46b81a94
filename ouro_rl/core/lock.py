"""The lock: the versions that were tested together, for each platform, and how what is installed here differs from them.

`requirements.lock` is made by `make lock` and used by `make quickstart` and `make test`; `python -m ouro_rl.core.lock` prints differences.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import metadata, resources

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version


def locked_versions(environment: Mapping[str, str] | None = None) -> dict[str, Version]:
    """Version by package, where markers hold: here, or in an environment (names of PEP 508) that differs from it."""
    text = (resources.files("ouro_rl") / "requirements.lock").read_text(encoding="utf-8")
    pins = [Requirement(line) for line in text.splitlines() if line and not line.startswith("#")]
    here = [pin for pin in pins if pin.marker is None or pin.marker.evaluate(dict(environment or {}))]
    return {canonicalize_name(pin.name): Version(next(iter(pin.specifier)).version) for pin in here}


def installed_version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def differences() -> dict[str, tuple[str, str]]:
    """(locked, installed) of every locked package that is installed here in another version. A build's label (`+cpu`) is no difference."""
    found = {name: (version, installed_version(name)) for name, version in locked_versions().items()}
    return {
        name: (str(version), installed)
        for name, (version, installed) in found.items()
        if installed is not None and Version(installed).public != version.public
    }


def describe_differences() -> str:
    """One line a difference, or one that says that there is none."""
    lines = [f"{name} {installed} (locked: {locked})" for name, (locked, installed) in sorted(differences().items())]
    return "installed in other versions than locked: " + ", ".join(lines) if lines else "installed as locked"


if __name__ == "__main__":
    print(describe_differences())
