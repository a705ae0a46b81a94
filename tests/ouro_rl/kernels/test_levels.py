"""Batch invariance at each instruction-set level: higher ones are disabled in torch, oneDNN, MKL and the C kernels.

`make test-levels` runs `WHOLE` at every level of this machine; the ordinary suite runs `SHORT` at all but the highest.
"""

import os
import subprocess
import sys

import pytest

from ouro_rl.kernels.cpu import select as cpu_kernels
from ouro_rl.kernels.cpu.build import find_compiler
from ouro_rl.kernels.processor import LEVEL, levels
from tests.references.places import REPOSITORY

ENVIRONMENTS = {
    "baseline": {"ATEN_CPU_CAPABILITY": "default", "ONEDNN_MAX_CPU_ISA": "SSE41", "MKL_ENABLE_INSTRUCTIONS": "SSE4_2"},
    "avx2": {"ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2", "MKL_ENABLE_INSTRUCTIONS": "AVX2"},
    "avx512": {
        "ATEN_CPU_CAPABILITY": "avx512",
        "ONEDNN_MAX_CPU_ISA": "AVX512_CORE",
        "MKL_ENABLE_INSTRUCTIONS": "AVX512",
    },
}
WHOLE = [
    "tests/ouro_rl/kernels/test_cpu_kernels.py",
    "tests/ouro_rl/kernels/test_cpu_layer_stack.py",
    "tests/ouro_rl/model/test_replay.py",
    "tests/rollout_workers",
    "tests/integration/test_sampling_replay.py",
]
SHORT = [
    "tests/ouro_rl/kernels/test_cpu_kernels.py::test_linear",
    "tests/ouro_rl/kernels/test_cpu_kernels.py::test_rowwise_functions",
    "tests/ouro_rl/kernels/test_cpu_kernels.py::test_attention_over_pages",
    "tests/ouro_rl/kernels/test_cpu_kernels.py::test_attention_gradients",
    "tests/rollout_workers/engine/test_engine.py::test_a_sample_is_the_same_alone_and_in_a_batch[kernels-32]",
    "tests/rollout_workers/engine/graphs/test_static_passes.py::test_static_and_dynamic_passes_give_the_same_rollouts[kernels-0]",
    "tests/integration/test_sampling_replay.py::test_worker_and_trainer_agree_on_every_log_prob[1.0-0.5-0.1-all]",
]
pytestmark = pytest.mark.skipif(find_compiler() is None or not levels(), reason="no C compiler, or not an x86-64")


def check_at(level: str, tests: list[str], timeout: float) -> None:
    environment = {**os.environ, **ENVIRONMENTS[level], LEVEL: level}
    environment.pop(cpu_kernels.SWITCH, None)
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *tests]
    done = subprocess.run(command, env=environment, cwd=REPOSITORY, capture_output=True, text=True, timeout=timeout)
    assert done.returncode == 0, f"{level}:\n{done.stdout[-6000:]}{done.stderr[-2000:]}"


@pytest.mark.parametrize("level", levels()[:-1])
def test_batch_invariance_at_lower_levels(level):
    check_at(level, SHORT, timeout=900)


@pytest.mark.slow
@pytest.mark.parametrize("level", levels())
def test_all_of_batch_invariance_at_every_level(level):
    check_at(level, WHOLE, timeout=7200)
