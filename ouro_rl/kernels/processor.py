"""The CPU's instruction-set level: what the C kernels may use, and whether oneDNN's bf16 products are native."""

from __future__ import annotations

import functools
import os
import platform
from pathlib import Path

from ouro_rl.core.errors import UserError

LEVEL = "OURO_RL_CPU"
"""Environment variable: a level of `LEVELS`, or `native` (the default), everything that this CPU supports."""
ONEDNN_LEVEL = ("ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA")
"""oneDNN's environment variable for the same purpose: its current and its old name."""
ONEDNN_WITHOUT_BF16 = ("SSE41", "AVX", "AVX2", "AVX2_VNNI", "AVX2_VNNI_2", "AVX512_CORE", "AVX512_CORE_VNNI")
"""oneDNN levels at which bf16 products are emulated."""
ONEDNN_WITHOUT_AMX = (*ONEDNN_WITHOUT_BF16, "AVX512_CORE_BF16", "AVX512_CORE_FP16", "AVX10_1_512")
"""oneDNN levels at which AMX is not used."""
NATIVE = "native"
LEVELS = {"baseline": "x86-64", "avx2": "x86-64-v3", "avx512": "x86-64-v4"}
"""Our names and the compilers' names of the levels, lowest first."""
_NEEDS = {
    "baseline": "",
    "avx2": "avx2 bmi1 bmi2 f16c fma movbe",
    "avx512": "avx2 bmi1 bmi2 f16c fma movbe avx512f avx512bw avx512cd avx512dq avx512vl",
}


def is_x86() -> bool:
    return platform.machine() in ("x86_64", "AMD64")


@functools.cache
def cpu_flags() -> str:
    """The CPU feature flags, as listed by Linux."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line for line in lines if line.startswith(("flags", "Features"))), "")


def levels() -> list[str]:
    """The levels that this CPU supports, lowest first; empty if it is not x86-64."""
    flags = set(cpu_flags().split())
    return [level for level in LEVELS if flags.issuperset(_NEEDS[level].split())] if is_x86() else []


def level() -> str:
    """The requested level: one of `LEVELS`, or `native`. Raises UserError if this CPU does not support it."""
    asked = os.environ.get(LEVEL) or NATIVE
    if asked != NATIVE and asked not in levels():
        known = "not supported by this CPU" if asked in LEVELS else "unknown level"
        raise UserError(f"{LEVEL}={asked}: {known}; choose one of {', '.join([*levels(), NATIVE])}")
    return asked


def has_bf16_products() -> bool:
    """Whether oneDNN has native bf16 products here; otherwise it emulates them, at a fifth of the speed of fp32."""
    return _onednn_uses(("amx_bf16", "avx512_bf16"), ONEDNN_WITHOUT_BF16)


def has_amx() -> bool:
    """Whether oneDNN multiplies bf16 matrices by AMX, faster than the C kernels multiply pairs of numbers."""
    return _onednn_uses(("amx_bf16",), ONEDNN_WITHOUT_AMX)


def _onednn_uses(any_flag: tuple[str, ...], levels_without: tuple[str, ...]) -> bool:
    allowed = next(filter(None, map(os.environ.get, ONEDNN_LEVEL)), "ALL").upper()
    return level() == NATIVE and allowed not in levels_without and not set(cpu_flags().split()).isdisjoint(any_flag)
