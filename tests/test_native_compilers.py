"""The C kernels by every compiler at hand, and for ARM's processors: tests/kernels_driver.c checks them without Python."""

import shutil
import subprocess
from pathlib import Path

import pytest

from ouro_rl.native.build import BRANCHES, FLAGS, FOLDER, flags_for
from ouro_rl.processor import levels

DRIVER = Path(__file__).with_name("kernels_driver.c")
ARM = ("aarch64-linux-gnu-gcc", "qemu-aarch64")
HERE = [(compiler, level) for compiler in ("gcc", "clang") for level in levels()]


def faults_of(command: list[str], tmp_path: Path, runner: list[str]) -> str:
    """What the driver says. Without OpenMP, which a Mac's compiler does not have either."""
    sources = [DRIVER, *sorted(FOLDER.glob("*.c"))]
    program = tmp_path / "driver"
    subprocess.run([*command, "-Wno-unknown-pragmas", f"-I{FOLDER}", *sources, "-o", program, "-lm"], check=True)
    return subprocess.run([*runner, program], capture_output=True, text=True).stdout


@pytest.mark.parametrize("compiler, level", HERE)
def test_every_compiler_at_every_level(compiler, level, tmp_path):
    if shutil.which(compiler) is None:
        pytest.skip(f"no {compiler}")
    flags = [flag for flag in flags_for(level) if flag != BRANCHES]
    width = {"baseline": 4, "avx2": 8, "avx512": 16}[level]
    assert faults_of([compiler, *flags], tmp_path, []) == f"{width} numbers at a time, 0 faults\n"


def test_for_arm(tmp_path):
    for program in ARM:
        if shutil.which(program) is None:
            pytest.skip(f"no {program}")
    compiler, emulator = ARM
    assert faults_of([compiler, *FLAGS, "-static"], tmp_path, [emulator]) == "4 numbers at a time, 0 faults\n"
