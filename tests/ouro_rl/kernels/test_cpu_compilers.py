"""The C kernels built by clang, and for ARM: tests/references/kernels_driver.c checks them without Python.

test_levels.py tests the build by this machine's default compiler."""

import shutil
import subprocess
from pathlib import Path

import pytest

from ouro_rl.kernels.cpu.build import BRANCHES, FLAGS, FOLDER, flags_for
from ouro_rl.kernels.processor import levels
from tests.references.places import REPOSITORY

DRIVER = REPOSITORY / "tests" / "references" / "kernels_driver.c"
ARM = ("aarch64-linux-gnu-gcc", "qemu-aarch64")


def faults_of(command: list[str], tmp_path: Path, runner: list[str]) -> str:
    """The output of the driver, built without OpenMP, which a Mac's compiler does not have either."""
    sources = [DRIVER, *sorted(FOLDER.glob("*.c"))]
    program = tmp_path / "driver"
    subprocess.run([*command, "-Wno-unknown-pragmas", f"-I{FOLDER}", *sources, "-o", program, "-lm"], check=True)
    return subprocess.run([*runner, program], capture_output=True, text=True).stdout


@pytest.mark.skipif(shutil.which("clang") is None, reason="no clang")
@pytest.mark.parametrize("level", levels())
def test_clang_at_every_level(level, tmp_path):
    flags = [flag for flag in flags_for(level) if flag != BRANCHES]
    width = {"baseline": 4, "avx2": 8, "avx512": 16}[level]
    assert faults_of(["clang", *flags], tmp_path, []) == f"{width} numbers at a time, 0 faults\n"


def test_it_compiles_for_arm(tmp_path):
    for program in ARM:
        if shutil.which(program) is None:
            pytest.skip(f"no {program}")
    compiler, emulator = ARM
    assert faults_of([compiler, *FLAGS, "-static"], tmp_path, [emulator]) == "4 numbers at a time, 0 faults\n"
