"""The lock file: the versions that were tested together on each platform, and how the installed ones differ.

`make lock` writes `requirements.lock`, beside this file; `make quickstart` and `make test` install from it.
`python -m ouro_rl.core.lock` prints the differences.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import metadata, resources

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version


def locked_versions(environment: Mapping[str, str] | None = None) -> dict[str, Version]:
    """Locked version by package, for this machine or with some PEP 508 markers overridden by `environment`."""
    text = (resources.files("ouro_rl.core") / "requirements.lock").read_text(encoding="utf-8")
    pins = [Requirement(line) for line in text.splitlines() if line and not line.startswith("#")]
    here = [pin for pin in pins if pin.marker is None or pin.marker.evaluate(dict(environment or {}))]
    return {canonicalize_name(pin.name): Version(next(iter(pin.specifier)).version) for pin in here}


def installed_version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def differences() -> dict[str, tuple[str, str]]:
    """(locked, installed) for every locked package installed in another version; local labels (`+cpu`) do not count."""
    found = {name: (version, installed_version(name)) for name, version in locked_versions().items()}
    return {
        name: (str(version), installed)
        for name, (version, installed) in found.items()
        if installed is not None and Version(installed).public != version.public
    }


def describe_differences() -> str:
    """One line that lists the differences, or says that there are none."""
    lines = [f"{name} {installed} (locked: {locked})" for name, (locked, installed) in sorted(differences().items())]
    return "installed versions that differ from the lock: " + ", ".join(lines) if lines else "installed as locked"


if __name__ == "__main__":
    print(describe_differences())
