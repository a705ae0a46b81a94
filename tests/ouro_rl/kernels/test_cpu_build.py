"""Where the C kernels are compiled and cached, and that nothing is left behind."""

import contextlib
import ctypes
import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from ouro_rl.kernels.cpu import build
from ouro_rl.kernels.cpu import select as cpu_kernels
from ouro_rl.kernels.processor import LEVEL, level, levels

KERNELS, WHY = cpu_kernels.load()
pytestmark = pytest.mark.skipif(KERNELS is None, reason=WHY)


@pytest.fixture
def built(monkeypatch, tmp_path):
    """Replaces compilation, and puts the cache below tmp_path: in home/ouro-rl, or else in temporary/ouro-rl-<user>."""
    made = []

    def compile(*arguments):
        made.append(arguments)
        (arguments[-1] / "kernels.so").write_bytes(b"library")

    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(build, "_compile", compile)
    return made


def no_home(monkeypatch, tmp_path, how):
    if how == "unset":
        monkeypatch.delenv("XDG_CACHE_HOME")
        monkeypatch.setattr("pathlib.Path.home", lambda: exec("raise RuntimeError"))
    else:
        (tmp_path / "home").write_text("no folder")


def test_a_built_library_is_found_where_nothing_can_be_written(monkeypatch, tmp_path, built):
    def refuse(*_, **__):
        raise PermissionError(13, "Permission denied")

    temporary = contextlib.ExitStack()
    path = build._build("cc", temporary)
    assert path.parent == tmp_path / "home" / "ouro-rl" and path.read_bytes() == b"library"
    with monkeypatch.context() as sealed:
        sealed.setattr("tempfile.TemporaryFile", refuse)
        assert build._build("cc", temporary) == path
        path.unlink()
        elsewhere = build._build("cc", temporary)
    assert elsewhere.parent != path.parent and elsewhere.read_bytes() == b"library"
    temporary.close()
    assert not elsewhere.parent.exists()


@pytest.mark.parametrize("how", ["unset", "read-only"])
def test_without_a_home_folder_all_processes_of_a_user_share_one_library(how, monkeypatch, tmp_path, built):
    no_home(monkeypatch, tmp_path, how)
    with contextlib.ExitStack() as temporary:
        path = build._build("cc", temporary)
        assert build._build("cc", temporary) == path and len(built) == 1
    folder = tmp_path / "temporary" / f"ouro-rl-{os.getuid()}"
    assert path.parent == folder and path.exists()
    assert folder.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("whose", ["anybody's", "a link", "somebody's"])
def test_nothing_is_loaded_from_a_folder_that_others_can_write(whose, monkeypatch, tmp_path, built):
    no_home(monkeypatch, tmp_path, "read-only")
    folder = tmp_path / "temporary" / f"ouro-rl-{os.getuid()}"
    with contextlib.ExitStack() as temporary:
        path = build._build("cc", temporary)
        if whose == "anybody's":
            folder.chmod(0o777)
        elif whose == "a link":
            folder.rename(tmp_path / "other")
            folder.symlink_to(tmp_path / "other")
        else:
            stranger = os.getuid() + 1
            monkeypatch.setattr("os.getuid", lambda: stranger)
            folder.rename(folder.with_name(f"ouro-rl-{os.getuid()}"))
        path = build._build("cc", temporary)
        assert path.exists() and len(built) == 2 and path.parent.name != f"ouro-rl-{os.getuid()}"


def test_a_library_that_cannot_be_kept_leaves_nothing_behind(tmp_path):
    """Nor does anything need to be removed at exit: workers are killed."""
    (tmp_path / "home").write_text("no folder")
    (tmp_path / "tmp").mkdir()
    anybodys = tmp_path / "tmp" / f"ouro-rl-{os.getuid()}"
    anybodys.mkdir()
    anybodys.chmod(0o777)
    code = (
        "import os, torch\nfrom ouro_rl.kernels.cpu.build import library\nprint(library()[1], flush=True)\nos._exit(0)"
    )
    environment = {**os.environ, "XDG_CACHE_HOME": str(tmp_path / "home"), "TMPDIR": str(tmp_path / "tmp")}
    environment.pop(cpu_kernels.SWITCH, None)
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert "C kernels" in done.stdout, done
    assert [one.name for one in (tmp_path / "tmp").iterdir() if one.name.startswith("ouro-rl-")] == [anybodys.name]
    assert not [*anybodys.iterdir()]


def test_leftovers_of_killed_compilers_are_removed(monkeypatch, tmp_path, built):
    cache = tmp_path / "home" / "ouro-rl"
    for name in (
        f"building-{platform.node()}-killed",
        "building-elsewhere-at-work",
        "building-elsewhere-killed",
        "tmpkilled",
    ):
        (cache / name).mkdir(parents=True)
        (cache / name / "linear.o").write_bytes(b"half")
    for name in ("building-elsewhere-killed", "tmpkilled"):
        os.utime(cache / name, (0, 0))
    with monkeypatch.context() as unlocked, contextlib.ExitStack() as temporary:
        unlocked.setattr("fcntl.flock", lambda *_: exec("raise OSError"))
        build._build("cc", temporary).unlink()
        assert len([*cache.glob("building-*")]) == 3, "without a lock it is unknown whether another build is running"
    path = build._build("cc", contextlib.ExitStack())
    assert sorted(one.name for one in cache.iterdir()) == ["building", "building-elsewhere-at-work", path.name]


@pytest.mark.skipif(
    "avx512" not in levels() or level() not in ("native", "avx512"),
    reason="all tests run the code without AVX-512 here (and the baseline's, without fused products, has other bits)",
)
def test_the_code_for_cpus_without_avx512_gives_the_same_bits(monkeypatch, tmp_path):
    """Other vectors and blocks of rows, but the same sums. Built by a compiler whose assembler knows fewer flags."""
    compiler = tmp_path / "cc"
    compiler.write_text(f'#!/bin/sh\ncase "$*" in *-Wa,*) exit 1;; esac\nexec {build.find_compiler()} "$@"\n')
    compiler.chmod(0o755)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))

    def built(for_level: str) -> Path:
        monkeypatch.setenv(LEVEL, for_level)
        with contextlib.ExitStack() as temporary:
            return build._build(str(compiler), temporary)

    # Not the native level: a processor that multiplies pairs of bf16 numbers sums them in another order.
    wide = cpu_kernels.Kernels(ctypes.CDLL(str(built("avx512"))))
    path = built("avx2")
    other = cpu_kernels.Kernels(ctypes.CDLL(str(path)))
    disassembled = subprocess.run(["objdump", "-d", str(path)], capture_output=True, text=True).stdout
    assert "%ymm" in disassembled and "%zmm" not in disassembled
    torch.manual_seed(0)
    for dtype in (torch.float32, torch.bfloat16):
        for rows, outputs, inputs in ((1, 40, 32), (7, 70, 75), (64, 96, 768), (150, 33, 2048)):
            x, packed = torch.randn(rows, inputs).to(dtype), cpu_kernels.pack(torch.randn(outputs, inputs).to(dtype))
            assert torch.equal(other.linear(x, packed), wide.linear(x, packed))
        x, up, weight = torch.randn(20, 96).to(dtype), torch.randn(20, 96).to(dtype), torch.rand(96)
        assert torch.equal(other.rms_norm(x, weight, 1e-6), wide.rms_norm(x, weight, 1e-6))
        assert torch.equal(other.silu_mul(x, up), wide.silu_mul(x, up))
        table, contexts = torch.randint(90, (10, 50)), torch.randint(1, 51, (20,))
        rows_of = wide.plan_rows(table, torch.arange(20) // 2, contexts)
        for dim in (64, 24, 300):
            q, keys, values = (torch.randn(n, heads, dim).to(dtype) for n, heads in ((20, 4), (90, 2), (90, 2)))
            mixed = wide.attend(q, keys, values, rows_of, 0.125)
            assert torch.equal(other.attend(q, keys, values, rows_of, 0.125), mixed)
