"""Compiles the C files of this folder into a shared library at first use, and caches it.

The cache is in the user's cache folder, or else in the temporary folder. Without a compiler, or if anything else fails,
`library` says why and plain torch is used: slower, but otherwise equivalent.
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
"""On Intel CPUs of 2015 to 2020, products are 10 % slower if the jump of their loop crosses a 32-byte boundary, since
such code is not kept in the decoded-instruction cache."""
_OLD_S = 24 * 3600.0
"""Folders of unfinished builds are removed after this time; no compiler runs that long."""


@functools.cache
def library() -> tuple[ctypes.CDLL | None, str]:
    """(the library or None, a one-line reason)."""
    if os.environ.get(SWITCH) == "torch":
        return None, f"plain torch ({SWITCH}=torch)"
    asked, compiler = level(), find_compiler()
    if compiler is None:
        return None, "plain torch (no C compiler found: install cc, gcc or clang for rollouts several times as fast)"
    try:
        with contextlib.ExitStack() as temporary:  # a loaded library no longer needs its file
            found = ctypes.CDLL(str(_build(compiler, temporary)))
    except (OSError, subprocess.SubprocessError) as error:
        return None, f"plain torch (the C kernels could not be built: {_reason(error)})"
    has = levels()[-1] if levels() else platform.machine()
    return found, f"C kernels ({f'{NATIVE}: {has}' if asked == NATIVE else asked}, built with {compiler})"


def find_compiler() -> str | None:
    """Path of the C compiler, or None."""
    return next(filter(None, map(shutil.which, ("cc", "gcc", "clang"))), None)


def _reason(error: Exception) -> str:
    lines = (getattr(error, "stderr", None) or b"").decode(errors="replace").strip().splitlines()
    return f"{error}: {lines[0]}" if lines else str(error)


def _build(compiler: str, temporary: contextlib.ExitStack) -> Path:
    """The shared library for these sources and this kind of CPU, built if necessary.

    It is built under another name and renamed, so that several processes can try at once. If it cannot be cached, it is
    removed with `temporary`, right after loading: a worker that is killed later could not remove it."""
    flags = flags_for(level())
    sources = sorted(FOLDER.glob("*.c"))
    text = b"".join(path.read_bytes() for path in [*sources, *sorted(FOLDER.glob("*.h"))])
    name = hashlib.blake2b(text + repr((flags, compiler, cpu_flags())).encode(), digest_size=8).hexdigest()
    file = f"kernels-{name}.so"
    homes = cache_folders()
    for home in homes:
        if os.path.exists(home / file) and _is_safe(home):  # already built: the folder may be read-only
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
    """Compiler flags for a level of `processor.LEVELS` or `native`. ARM's vectors need no extra flags."""
    return (*FLAGS, f"-march={LEVELS.get(asked, asked)}", BRANCHES) if is_x86() else FLAGS


def cache_folders() -> list[Path]:
    """Folders that can hold the library, in order of preference; all processes of this user look there."""
    folders = []
    with contextlib.suppress(RuntimeError):  # no home folder
        folders.append(Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "ouro-rl")
    if hasattr(os, "getuid"):
        folders.append(Path(tempfile.gettempdir()) / f"ouro-rl-{os.getuid()}")
    return folders


def _is_safe(folder: Path) -> bool:
    """A folder below the temporary folder, which is open to all, must be this user's and writable by no one else."""
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
    """A lock, so that one of several workers compiles while others wait. Yields False if files cannot be locked."""
    with open(path, "a") as file:
        locked = False
        with contextlib.suppress(ImportError, OSError):
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX)  # released when the file is closed
            locked = True
        yield locked


def _workplace() -> str:
    """Prefix of this machine's build folders. Locks may not work across machines that share the home folder."""
    return f"building-{platform.node()}-"


def _remove_leftovers(cache: Path) -> None:
    """Remove folders of killed builds: this machine's (no other runs, since we hold the lock) and all old ones."""
    for folder in [*cache.glob("building-*"), *cache.glob("tmp*")]:
        with contextlib.suppress(OSError):
            if folder.name.startswith(_workplace()) or time.time() - folder.stat().st_mtime > _OLD_S:
                shutil.rmtree(folder, ignore_errors=True)


def _compile(compiler: str, flags: tuple[str, ...], sources: list[Path], folder: Path) -> None:
    say("Compiling the C kernels (once per machine)")
    # Threads come from OpenMP, from torch's own library, which is already loaded. Not every compiler has its headers,
    # and not every assembler knows the flag.
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
