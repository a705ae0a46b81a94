"""Compiles the C files of this folder into one shared library, at first use, and keeps it in the user's cache folder.

Without a compiler, or where anything else is odd, `library` says why and plain torch is used: that costs speed, never function.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import hashlib
import os
import platform
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from ouro_rl.progress import say
from ouro_rl.row_kernels import SWITCH

FOLDER = Path(__file__).parent
FLAGS = ("-O3", "-fPIC", "-std=gnu11", "-fvisibility=hidden", "-fno-math-errno", "-fno-trapping-math")
X86_FLAGS = ("-march=native", "-Wa,-mbranches-within-32B-boundaries")
"""The second: on Intel's processors of 2015 to 2020 products are a tenth slower when the jump of their loop happens to lie across such a
boundary, for what lies there is not kept decoded."""
_OLD_S = 24 * 3600.0
"""No compiler runs that long."""


@functools.cache
def library() -> tuple[ctypes.CDLL | None, str]:
    """(the library or None, one line that says what runs and why)."""
    if os.environ.get(SWITCH) == "torch":
        return None, f"plain torch ({SWITCH}=torch)"
    compiler = find_compiler()
    if compiler is None:
        return None, "plain torch (no C compiler found: cc, gcc or clang would make rollouts several times faster)"
    try:
        with contextlib.ExitStack() as temporary:  # a library that is loaded needs its file no more
            return ctypes.CDLL(str(_build(compiler, temporary))), f"C kernels (built with {compiler})"
    except (OSError, subprocess.SubprocessError, RuntimeError) as error:  # no home folder: RuntimeError
        return None, f"plain torch (the C kernels could not be built: {_reason(error)})"


def find_compiler() -> str | None:
    """Path of the C compiler that is used."""
    return next(filter(None, map(shutil.which, ("cc", "gcc", "clang"))), None)


def _reason(error: Exception) -> str:
    lines = (getattr(error, "stderr", None) or b"").decode(errors="replace").strip().splitlines()
    return f"{error}: {lines[0]}" if lines else str(error)


def _build(compiler: str, temporary: contextlib.ExitStack) -> Path:
    """The shared library for these sources and this kind of CPU; built under another name and moved, so that many may try.
    Where it cannot be kept, it ends with `temporary`: now, since a worker that is killed would never come to remove it."""
    flags = (*FLAGS, *X86_FLAGS) if platform.machine() in ("x86_64", "AMD64") else FLAGS
    sources = sorted(FOLDER.glob("*.c"))
    text = b"".join(path.read_bytes() for path in [*sources, *sorted(FOLDER.glob("*.h"))])
    name = hashlib.blake2b(text + repr((flags, compiler, cpu_flags())).encode(), digest_size=8).hexdigest()
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "ouro-rl"
    path = cache / f"kernels-{name}.so"
    if os.path.exists(path):  # filled before, maybe by somebody else: it need not be for us to write in
        return path
    try:
        cache.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=cache).close()
    except OSError:
        cache = Path(temporary.enter_context(tempfile.TemporaryDirectory(prefix="ouro-rl-", ignore_cleanup_errors=True)))
        path = cache / path.name
    with _alone(cache / "building") as alone:
        if not path.exists():
            if alone:
                _remove_leftovers(cache)
            with tempfile.TemporaryDirectory(dir=cache, prefix=_workplace()) as folder:
                _compile(compiler, flags, sources, Path(folder))
                os.replace(Path(folder) / "kernels.so", path)
    return path


@contextlib.contextmanager
def _alone(path: Path) -> Iterator[bool]:
    """Several workers start at once: one compiles, the others wait for it. Where files cannot be locked (False), each compiles."""
    with open(path, "a") as file:
        locked = False
        with contextlib.suppress(ImportError, OSError):
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX)  # until it is closed
            locked = True
        yield locked


def _workplace() -> str:
    """How the names of folders begin in which this machine compiles. A lock may not reach others that share the home folder."""
    return f"building-{platform.node()}-"


def _remove_leftovers(cache: Path) -> None:
    """Folders of compilers that were killed at work: this machine's, since nobody else here compiles now, and all old ones."""
    for folder in [*cache.glob("building-*"), *cache.glob("tmp*")]:
        with contextlib.suppress(OSError):
            if folder.name.startswith(_workplace()) or time.time() - folder.stat().st_mtime > _OLD_S:
                shutil.rmtree(folder, ignore_errors=True)


def _compile(compiler: str, flags: tuple[str, ...], sources: list[Path], folder: Path) -> None:
    say("Compiling the C kernels, once for this machine")
    # Threads come from OpenMP, torch's own (the process has loaded it by then); not every compiler has its headers, or such an assembler.
    plain = tuple(flag for flag in flags if not flag.startswith("-Wa"))
    attempts = ((*flags, "-fopenmp"), (*plain, "-fopenmp"), (*plain, "-Wno-unknown-pragmas"))
    for attempt in attempts:
        objects = [folder / f"{source.stem}.o" for source in sources]

        def run(*arguments: str | Path, attempt: tuple[str, ...] = attempt) -> None:
            subprocess.run([compiler, *attempt, *arguments], check=True, capture_output=True, timeout=300)

        try:
            with ThreadPoolExecutor() as pool:
                list(pool.map(lambda pair: run("-c", pair[0], "-o", pair[1]), zip(sources, objects, strict=True)))
            return run("-shared", *objects, "-o", folder / "kernels.so")
        except subprocess.CalledProcessError:
            if attempt == attempts[-1]:
                raise


def cpu_flags() -> str:
    """What the CPU can do: a home folder may be shared by different machines."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line for line in lines if line.startswith(("flags", "Features"))), "")
