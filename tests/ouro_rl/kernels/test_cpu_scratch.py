"""Scratch memory of the C kernels: each thread has its own."""

import sys
import threading
from pathlib import Path

import pytest
import torch

from ouro_rl.kernels.cpu import select as cpu_kernels

KERNELS, WHY = cpu_kernels.load()
pytestmark = pytest.mark.skipif(KERNELS is None, reason=WHY)


@pytest.mark.skipif(sys.platform != "linux", reason="memory is read in /proc")
def test_scratch_memory_is_freed_with_its_thread():
    """A rollout worker has a thread for every call."""
    x, packed = torch.randn(512, 2048), cpu_kernels.pack(torch.randn(32, 2048))

    def multiply_in_a_thread():
        thread = threading.Thread(target=KERNELS.linear, args=(x, packed))
        thread.start()
        thread.join()

    def memory():
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("RssAnon:")) / 1024

    multiply_in_a_thread()
    before = memory()
    for _ in range(100):
        multiply_in_a_thread()
    assert memory() - before < 20, "MiB; a thread needs more than one"
