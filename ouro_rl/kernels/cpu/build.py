"""Compiles the C files of this folder into one shared library, at first use, and keeps it in the user's cache folder, or among the
temporary files.

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
import stat
import subprocess
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from ouro_rl.core.progress import say
from ouro_rl.kernels.interface import SWITCH
from ouro_rl.kernels.processor import LEVELS, NATIVE, cpu_flags, is_x86, level, levels

FOLDER = Path(__file__).parent
FLAGS = ("-O3", "-fPIC", "-std=gnu11", "-fvisibility=hidden", "-fno-math-errno", "-fno-trapping-math")
BRANCHES = "-Wa,-mbranches-within-32B-boundaries"
"""On Intel's processors of 2015 to 2020 products are a tenth slower when the jump of their loop happens to lie across such a
boundary, for what lies there is not kept decoded."""
_OLD_S = 24 * 3600.0
"""No compiler runs that long."""


@functools.cache
def library() -> tuple[ctypes.CDLL | None, str]:
    """(the library or None, one line that says what runs and why)."""
    if os.environ.get(SWITCH) == "torch":
        return None, f"plain torch ({SWITCH}=torch)"
    asked, compiler = level(), find_compiler()
    if compiler is None:
        return None, "plain torch (no C compiler found: cc, gcc or clang would make rollouts several times faster)"
    try:
        with contextlib.ExitStack() as temporary:  # a library that is loaded needs its file no more
            found = ctypes.CDLL(str(_build(compiler, temporary)))
    except (OSError, subprocess.SubprocessError) as error:
        return None, f"plain torch (the C kernels could not be built: {_reason(error)})"
    has = levels()[-1] if levels() else platform.machine()
    return found, f"C kernels ({f'{NATIVE}: {has}' if asked == NATIVE else asked}, built with {compiler})"


def find_compiler() -> str | None:
    """Path of the C compiler that is used."""
    return next(filter(None, map(shutil.which, ("cc", "gcc", "clang"))), None)


def _reason(error: Exception) -> str:
    lines = (getattr(error, "stderr", None) or b"").decode(errors="replace").strip().splitlines()
    return f"{error}: {lines[0]}" if lines else str(error)


def _build(compiler: str, temporary: contextlib.ExitStack) -> Path:
    """The shared library for these sources and this kind of CPU; built under another name and moved, so that many may try.
    Where it cannot be kept, it ends with `temporary`: now, since a worker that is killed would never come to remove it."""
    flags = flags_for(level())
    sources = sorted(FOLDER.glob("*.c"))
    text = b"".join(path.read_bytes() for path in [*sources, *sorted(FOLDER.glob("*.h"))])
    name = hashlib.blake2b(text + repr((flags, compiler, cpu_flags())).encode(), digest_size=8).hexdigest()
    file = f"kernels-{name}.so"
    homes = cache_folders()
    for home in homes:
        if os.path.exists(home / file) and _is_safe(home):  # filled before: it need not be for us to write in
            return home / file
    cache = next((home for home in homes if _can_be_written(home) and _is_safe(home)), None)
    if cache is None:
        cache = Path(
            temporary.enter_context(tempfile.TemporaryDirectory(prefix="ouro-rl-", ignore_cleanup_errors=True))
        )
    path = cache / file
    with _alone(cache / "building") as alone:
        if not path.exists():
            if alone:
                _remove_leftovers(cache)
            with tempfile.TemporaryDirectory(dir=cache, prefix=_workplace()) as folder:
                _compile(compiler, flags, sources, Path(folder))
                os.replace(Path(folder) / "kernels.so", path)
    return path


def flags_for(asked: str) -> tuple[str, ...]:
    """Of the compiler, for a level of `processor.LEVELS` or `native`. ARM's vectors need none."""
    return (*FLAGS, f"-march={LEVELS.get(asked, asked)}", BRANCHES) if is_x86() else FLAGS


def cache_folders() -> list[Path]:
    """Where the library may be kept, the best first: all processes of this user look there."""
    folders = []
    with contextlib.suppress(RuntimeError):  # no home folder
        folders.append(Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "ouro-rl")
    if hasattr(os, "getuid"):
        folders.append(Path(tempfile.gettempdir()) / f"ouro-rl-{os.getuid()}")
    return folders


def _is_safe(folder: Path) -> bool:
    """Among the temporary files anybody can make a folder: it must be this user's own, and nobody else may write in it."""
    if folder.parent != Path(tempfile.gettempdir()):
        return True
    found, others = folder.lstat(), stat.S_IWGRP | stat.S_IWOTH
    return stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid() and not found.st_mode & others


def _can_be_written(folder: Path) -> bool:
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError:
        return False
    return True


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
