"""The instructions that are used, given the environment and the CPU."""

import pytest

from ouro_rl.cli import main as cli
from ouro_rl.core.errors import UserError
from ouro_rl.kernels import processor
from ouro_rl.kernels.cpu.build import flags_for, library
from ouro_rl.kernels.processor import LEVEL, LEVELS, has_amx, has_bf16_products, level, levels

AVX2 = "flags : sse2 avx2 bmi1 bmi2 f16c fma movbe"
AVX512 = f"{AVX2} avx512f avx512bw avx512cd avx512dq avx512vl"


@pytest.fixture
def cpu(monkeypatch):
    """Sets the CPU's flags, at first an x86-64 without extensions; clears the environment."""
    for name in (LEVEL, *processor.ONEDNN_LEVEL):
        monkeypatch.delenv(name, raising=False)

    def has(flags, machine="x86_64"):
        monkeypatch.setattr("platform.machine", lambda: machine)
        monkeypatch.setattr(processor, "cpu_flags", lambda: flags)

    has("flags : sse2")
    return has


def test_levels_are_those_of_the_processor(cpu, monkeypatch):
    assert levels() == ["baseline"] and level() == "native"
    cpu(AVX2)
    assert levels() == ["baseline", "avx2"]
    cpu(AVX512)
    assert levels() == ["baseline", "avx2", "avx512"]
    for asked in levels():
        monkeypatch.setenv(LEVEL, asked)
        assert level() == asked and f"-march={LEVELS[asked]}" in flags_for(asked)
    cpu("Features : asimd", machine="aarch64")
    assert levels() == [] and not any("-march" in flag for flag in flags_for("native"))


@pytest.mark.parametrize("asked, why", [("avx512", "not supported by this CPU"), ("sse9", "unknown level")])
def test_an_unsupported_level_is_refused_at_once(asked, why, cpu, monkeypatch, capsys):
    cpu(AVX2)
    monkeypatch.setenv(LEVEL, asked)
    with pytest.raises(UserError, match=f"{LEVEL}={asked}: {why}; choose one of baseline, avx2, native"):
        level()
    assert cli.main(["train", "no such config"]) == 2
    assert f"{LEVEL}={asked}" in capsys.readouterr().err


@pytest.mark.parametrize(
    "question, flags, environment, expected",
    [
        (has_bf16_products, AVX512, {}, False),
        (has_bf16_products, f"{AVX512} avx512_bf16", {}, True),
        (has_bf16_products, f"{AVX512} amx_bf16", {}, True),
        (has_bf16_products, f"{AVX512} avx512_bf16", {"ONEDNN_MAX_CPU_ISA": "AVX512_CORE_BF16"}, True),
        (has_bf16_products, f"{AVX512} avx512_bf16", {"ONEDNN_MAX_CPU_ISA": "all"}, True),
        (has_bf16_products, f"{AVX512} avx512_bf16", {"ONEDNN_MAX_CPU_ISA": "avx2"}, False),
        (has_bf16_products, f"{AVX512} avx512_bf16", {"DNNL_MAX_CPU_ISA": "AVX512_CORE"}, False),
        (has_bf16_products, f"{AVX512} avx512_bf16", {LEVEL: "avx512"}, False),
        (has_bf16_products, f"{AVX512} avx512_bf16", {LEVEL: "native"}, True),
        (has_amx, f"{AVX512} avx512_bf16", {}, False),
        (has_amx, f"{AVX512} avx512_bf16 amx_bf16", {}, True),
        (has_amx, f"{AVX512} avx512_bf16 amx_bf16", {"ONEDNN_MAX_CPU_ISA": "AVX512_CORE_AMX"}, True),
        (has_amx, f"{AVX512} avx512_bf16 amx_bf16", {"ONEDNN_MAX_CPU_ISA": "avx512_core_bf16"}, False),
        (has_amx, f"{AVX512} avx512_bf16 amx_bf16", {"ONEDNN_MAX_CPU_ISA": "AVX2"}, False),
        (has_amx, f"{AVX512} avx512_bf16 amx_bf16", {LEVEL: "avx512"}, False),
    ],
)
def test_instructions_are_those_of_the_level_that_is_used(question, flags, environment, expected, cpu, monkeypatch):
    cpu(flags)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert question() == expected


def test_the_description_names_the_level():
    found, description = library()
    if found is None:
        pytest.skip(description)
    assert f"({level()}" in description
