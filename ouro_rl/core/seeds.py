"""Seeds of samples. Does not import torch."""

from __future__ import annotations

import hashlib


def sample_seed(run_seed: int, step: int, prompt_index: int, sample_index: int) -> int:
    """63-bit seed of one sample: a hash of its identity, independent of order and worker."""
    name = f"{run_seed}/{step}/{prompt_index}/{sample_index}".encode()
    return int.from_bytes(hashlib.blake2b(name, digest_size=8).digest(), "little") >> 1
