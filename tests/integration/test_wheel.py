"""The wheel: its contents, and that it finds a packaged config from an empty folder, without the repository."""

from __future__ import annotations

import email
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from ouro_rl.config.packaged_configs import packaged_configs
from ouro_rl.config.yaml12 import parse_yaml
from tests.references.places import REPOSITORY

PACKAGES = ("ouro_rl", "rewards", "rollout_workers")
SOURCES = (*PACKAGES, "configs", "pyproject.toml", "README.md", "LICENSE")
LEFT_BEHIND = ("__pycache__", "*.pyc")


def build(kind: str, folder: Path, source: Path) -> Path:
    """Build the project in `source` with setuptools' backend, as pip does, without a network."""
    program = f"from setuptools import build_meta; build_meta.build_{kind}({str(folder)!r})"
    subprocess.run([sys.executable, "-c", program], cwd=source, check=True, capture_output=True)
    (built,) = folder.iterdir()
    return built


def copy_of_the_project(folder: Path) -> Path:
    """A copy of the repository's files only, plus a bytecode cache, which the wheel must not contain."""
    for name in SOURCES:
        path = REPOSITORY / name
        if path.is_dir():
            shutil.copytree(path, folder / name, ignore=shutil.ignore_patterns(*LEFT_BEHIND))
        else:
            shutil.copy(path, folder / name)
    (folder / "configs" / "math_tasks" / "__pycache__").mkdir()
    (folder / "configs" / "math_tasks" / "__pycache__" / "small_steps.pyc").write_bytes(b"")
    return folder


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build("wheel", tmp_path_factory.mktemp("wheel"), copy_of_the_project(tmp_path_factory.mktemp("project")))


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel's files, as installed."""
    folder = tmp_path_factory.mktemp("gelöst und leer")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder)
    return folder


def project_files() -> set[str]:
    """Every file that belongs to an installation, by its installed path."""
    packages = {
        path.relative_to(REPOSITORY).as_posix(): path for name in PACKAGES for path in (REPOSITORY / name).rglob("*")
    }
    configs = {
        f"ouro_rl/{path.relative_to(REPOSITORY).as_posix()}": path for path in (REPOSITORY / "configs").rglob("*")
    }
    files = {name for name, path in {**packages, **configs}.items() if path.is_file()}
    return {name for name in files if "__pycache__" not in name}


def test_it_contains_exactly_the_files_of_packages_and_configs(wheel):
    with zipfile.ZipFile(wheel) as archive:
        inside = {name for name in archive.namelist() if ".dist-info/" not in name}
    assert inside == project_files()
    for name in ("ouro_rl/py.typed", "rewards/py.typed", "rollout_workers/py.typed", "ouro_rl/core/requirements.lock"):
        assert name in inside
    assert "ouro_rl/configs/tiny_ouro/model.safetensors" in inside and "ouro_rl/kernels/cpu/layer_stack.c" in inside


def test_it_describes_itself(installed):
    (info,) = installed.glob("*.dist-info")
    fields = email.message_from_string((info / "METADATA").read_text(encoding="utf-8"))
    assert fields["Description-Content-Type"] == "text/markdown"
    assert fields.get_payload().strip() == (REPOSITORY / "README.md").read_text(encoding="utf-8").strip()
    assert fields["License-Expression"] == "Apache-2.0" and (info / "licenses" / "LICENSE").is_file()
    assert fields.get_all("Project-URL") and fields["Keywords"] and fields["Requires-Python"] == ">=3.11"
    assert {f"Programming Language :: Python :: 3.{minor}" for minor in (11, 12, 13)} <= set(
        fields.get_all("Classifier")
    )


def test_a_source_distribution_builds_the_same_wheel(wheel, tmp_path):
    for name in ("project", "sdist", "unpacked", "wheel"):
        (tmp_path / name).mkdir()
    archive = build("sdist", tmp_path / "sdist", copy_of_the_project(tmp_path / "project"))
    shutil.unpack_archive(archive, tmp_path / "unpacked")
    (source,) = (tmp_path / "unpacked").iterdir()
    again = build("wheel", tmp_path / "wheel", source)
    with zipfile.ZipFile(wheel) as first, zipfile.ZipFile(again) as second:
        assert sorted(first.namelist()) == sorted(second.namelist())


@pytest.mark.parametrize("name", ["quickstart", "configs/math_example.yaml"])
def test_a_packaged_config_is_found_from_an_empty_folder(installed, tmp_path, name):
    done = run(installed, tmp_path, "train", name, "run.dir=here", "--dry-run")
    config = parse_yaml(done.stdout)
    assert config["model"]["path"] == str(installed / "ouro_rl" / "configs" / "tiny_ouro")
    assert config["run"]["dir"] == "here"
    assert not list(tmp_path.iterdir())


def test_its_configs_are_listed_and_copied(installed, tmp_path):
    listed = run(installed, tmp_path, "configs").stdout
    assert {line.split()[0] for line in listed.splitlines()} == packaged_configs().keys()
    run(installed, tmp_path, "configs", "quickstart")
    done = run(installed, tmp_path, "train", "quickstart.yaml", "--dry-run")
    assert parse_yaml(done.stdout)["model"]["path"] == str(tmp_path / "tiny_ouro")


def run(installed: Path, folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(installed)}
    command = [sys.executable, "-m", "ouro_rl", *arguments]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done
