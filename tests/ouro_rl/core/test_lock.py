"""The lock pins the transitive requirements of the project on every platform, and nothing specific to a machine."""

from __future__ import annotations

import importlib.util
import re
import tomllib

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from ouro_rl.core import lock
from tests.references.places import REPOSITORY

LOCK = REPOSITORY / "ouro_rl" / "core" / "requirements.lock"
PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())
OURS = [
    Requirement(text)
    for text in (
        *PROJECT["build-system"]["requires"],
        *PROJECT["project"]["dependencies"],
        *PROJECT["project"]["optional-dependencies"]["dev"],
    )
]
PLATFORMS = {
    "Linux x86-64": {"sys_platform": "linux", "platform_machine": "x86_64", "platform_system": "Linux"},
    "Linux aarch64": {"sys_platform": "linux", "platform_machine": "aarch64", "platform_system": "Linux"},
    "macOS": {"sys_platform": "darwin", "platform_machine": "arm64", "platform_system": "Darwin"},
}
PYTHONS = ("3.11", "3.12", "3.13")


def wanted(requirements: list[Requirement], extras: set[str] = frozenset()) -> list[Requirement]:
    """The requirements whose markers hold here, for a package required with these extras."""
    return [
        requirement
        for requirement in requirements
        if requirement.marker is None or any(requirement.marker.evaluate({"extra": extra}) for extra in extras | {""})
    ]


def closure() -> dict[str, list[Requirement]]:
    """Requirements by package: ours and, transitively, those of packages installed here in their locked version."""
    asked: dict[str, list[Requirement]] = {}
    waiting = wanted(OURS)
    seen = set()
    others = lock.differences()
    while waiting:
        requirement = waiting.pop()
        name = canonicalize_name(requirement.name)
        asked.setdefault(name, []).append(requirement)
        if name in others or lock.installed_version(name) is None:
            continue
        if (name, frozenset(requirement.extras)) not in seen:
            seen.add((name, frozenset(requirement.extras)))
            texts = lock.metadata.requires(name) or []
            waiting += wanted([Requirement(text) for text in texts], requirement.extras)
    return asked


def test_all_transitive_requirements_are_locked_and_satisfied():
    locked, asked = lock.locked_versions(), closure()
    assert len(asked) > len(OURS)
    assert not asked.keys() - locked.keys()
    for name, requirements in asked.items():
        for requirement in requirements:
            assert requirement.specifier.contains(locked[name], prereleases=True), f"{name}: {requirement}"


@pytest.mark.parametrize("python", PYTHONS)
@pytest.mark.parametrize("platform", PLATFORMS)
def test_every_platform_has_one_version_of_every_requirement(platform, python):
    environment = {**PLATFORMS[platform], "python_version": python, "python_full_version": f"{python}.0"}
    pins = [Requirement(line) for line in LOCK.read_text().splitlines() if not line.startswith("#")]
    here = [pin for pin in pins if pin.marker is None or pin.marker.evaluate(environment)]
    assert len({pin.name for pin in here}) == len(here)
    locked = lock.locked_versions(environment)
    for requirement in OURS:
        if requirement.marker is None or requirement.marker.evaluate(environment):
            assert requirement.specifier.contains(locked[canonicalize_name(requirement.name)]), requirement


def test_it_has_exact_public_versions_and_nothing_from_the_machine_that_made_it():
    for line in LOCK.read_text().splitlines():
        if line.startswith("#"):
            assert "/" not in line and "://" not in line
        else:
            assert re.fullmatch(r"[a-z0-9-]+==[0-9a-z.]+( ; [^/@]+)?", line), line
    assert lock.locked_versions()["torch"].local is None, "a CPU's and a GPU's build of torch both fit"


def test_differences_are_reported_but_a_local_version_label_is_not(monkeypatch):
    versions = {name: str(version) for name, version in lock.locked_versions().items()}
    monkeypatch.setattr(lock, "installed_version", {**versions, "torch": f"{versions['torch']}+cpu"}.get)
    assert lock.describe_differences() == "installed as locked"
    monkeypatch.setattr(lock, "installed_version", {"transformers": "5.0.1", "trl": versions["trl"]}.get)
    locked = versions["transformers"]
    assert lock.differences() == {"transformers": (locked, "5.0.1")}
    assert lock.describe_differences().endswith(f": transformers 5.0.1 (locked: {locked})")


def test_a_test_run_says_how_it_differs(monkeypatch):
    from tests import conftest

    monkeypatch.setattr(lock, "installed_version", {"transformers": "5.0.1"}.get)
    assert "transformers 5.0.1 (locked: " in conftest.pytest_report_header()


def test_the_newest_versions_are_requested_without_upper_bounds():
    specification = importlib.util.spec_from_file_location("requirements", REPOSITORY / ".ci" / "requirements.py")
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    newest = {requirement.name: requirement for requirement in map(Requirement, module.newest())}
    for ours in OURS[len(PROJECT["build-system"]["requires"]) :]:
        theirs = newest[ours.name]
        assert (theirs.extras, str(theirs.marker)) == (ours.extras, str(ours.marker))
        lower = {str(part) for part in ours.specifier if part.operator == ">="}
        assert {str(part) for part in theirs.specifier} == lower
        assert Version("99") in theirs.specifier


def test_every_installation_of_the_makefile_is_locked():
    text = (REPOSITORY / "Makefile").read_text()
    assert f"LOCK := {LOCK.relative_to(REPOSITORY)}\n" in text
    assert re.search(r"^INSTALL = .*--constraint \$\(LOCK\)$", text, re.M)
    installs = [line for line in text.splitlines() if "pip install" in line and "$(BIN)" in line]
    assert installs == [line for line in installs if line.startswith("INSTALL")], (
        "every installation in .venv is locked"
    )
    assert re.search(r"^\$\(READY\): pyproject\.toml \$\(LOCK\)$", text, re.M), "a new lock makes .venv follow"
