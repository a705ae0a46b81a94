"""Builds and calls `attention.c`: row-wise paged attention on the CPU in fp32, without padding or gathered copies.

Compiled once with the C compiler that is there (about a second) and kept in the user's cache folder. Without a compiler, or where
anything else is odd, `load` says why and the plain torch attention is used: that costs speed, never function.
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import os
import platform
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch
from torch import Tensor

SOURCE = Path(__file__).with_name("attention.c")
FLAGS = ("-O3", "-shared", "-fPIC", "-std=gnu11", "-fopenmp-simd", "-fno-math-errno", "-fno-trapping-math")
SWITCH = "OURO_RL_ATTENTION"
"""Environment variable: `torch` keeps to the plain attention."""

ROWS_PER_THREAD = 32
"""Fewer rows are not worth another thread."""

Kernel = Callable[..., None]


@functools.cache
def load() -> tuple[Kernel | None, str]:
    """(the compiled function or None, one line that says which attention runs and why)."""
    if os.environ.get(SWITCH) == "torch":
        return None, f"plain torch attention ({SWITCH}=torch)"
    compiler = next(filter(None, map(shutil.which, ("cc", "gcc", "clang"))), None)
    if compiler is None:
        return None, "plain torch attention (no C compiler found: cc, gcc or clang would make rollouts faster)"
    try:
        function = ctypes.CDLL(str(_build(compiler))).attend_rows
    except (OSError, subprocess.SubprocessError, AttributeError, RuntimeError) as error:  # no home folder: RuntimeError
        return None, f"plain torch attention (the C kernel could not be built: {error})"
    pointer, number = ctypes.c_void_p, ctypes.c_int64
    function.argtypes = [pointer] * 7 + [number] * 3 + [ctypes.c_int] * 3 + [ctypes.c_float, pointer]
    function.restype = None
    return function, f"C attention (built with {compiler})"


def _build(compiler: str) -> Path:
    """The shared library for this source and this kind of CPU; built under another name and moved, so that many may try."""
    flags = (*FLAGS, "-march=native") if platform.machine() in ("x86_64", "AMD64") else FLAGS
    name = hashlib.blake2b(SOURCE.read_bytes() + repr((flags, _cpu())).encode(), digest_size=8).hexdigest()
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "ouro-rl"
    try:
        cache.mkdir(parents=True, exist_ok=True)
    except OSError:
        cache = Path(tempfile.mkdtemp(prefix="ouro-rl-"))
    library = cache / f"attention-{name}.so"
    if not library.exists():
        with tempfile.TemporaryDirectory(dir=cache) as folder:
            fresh = Path(folder) / library.name
            subprocess.run([compiler, *flags, SOURCE, "-o", fresh], check=True, capture_output=True, timeout=120)
            os.replace(fresh, library)
    return library


def _cpu() -> str:
    """What the CPU can do: a home folder may be shared by different machines."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line for line in lines if line.startswith(("flags", "Features"))), "")


def choose(keys: Tensor) -> tuple[Kernel | None, str]:
    """As `load`, for keys [pages, kv heads, dim] of this device, type and head size."""
    kernel, description = load()
    if kernel is None:
        return None, description
    if keys.device.type != "cpu" or keys.dtype != torch.float32:
        return None, f"plain torch attention (no kernel for {keys.dtype} on {keys.device.type} yet)"
    if keys.shape[2] % 16 or keys.shape[2] > 256:
        return None, f"plain torch attention (no kernel for heads of {keys.shape[2]})"
    return kernel, description


def attend_rows(
    function: Kernel,
    q: Tensor,
    keys: Tensor,
    values: Tensor,
    table: Tensor,
    lines: Tensor,
    contexts: Tensor,
    scaling: float,
) -> Tensor:
    """Row r of q [rows, heads, dim] over the pages table[lines[r], :contexts[r]] of keys and values [pages, kv heads, dim].

    `table` int64 [..., width], its leading axes together are the lines; `lines`, `contexts` int64 [n]. Rows beyond n (padding of
    a pass) give zeros."""
    q = q.contiguous()
    mixed = torch.empty_like(q)
    mixed[len(lines) :] = 0
    heads, kv_heads, dim = q.shape[1], keys.shape[1], q.shape[2]
    width, tensors = table.shape[-1], (mixed, q, keys, values, table, lines, contexts)
    assert all(tensor.is_contiguous() for tensor in tensors) and q.dtype == keys.dtype == torch.float32
    pointers = [tensor.data_ptr() for tensor in tensors]

    def part(start: int, stop: int) -> None:
        scores = torch.empty(width)
        function(*pointers, start, stop, width, heads, kv_heads, dim, scaling, scores.data_ptr())

    threads = min(torch.get_num_threads(), len(lines) // ROWS_PER_THREAD)
    if threads <= 1:
        part(0, len(lines))
    else:  # ctypes lets go of the interpreter's lock
        borders = [len(lines) * i // threads for i in range(threads + 1)]
        list(_threads().map(part, borders[:-1], borders[1:]))
    return mixed


@functools.cache
def _threads() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(os.cpu_count(), thread_name_prefix="attention")
