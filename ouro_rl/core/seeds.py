"""Seeds of samples. Does not import torch."""

from __future__ import annotations

import hashlib


def sample_seed(run_seed: int, step: int, prompt_index: int, sample_index: int) -> int:
    """63-bit seed of one sample: a hash of its identity, independent of order and worker."""
    return named_seed(run_seed, step, prompt_index, sample_index)


def named_seed(*name: str | int) -> int:
    """63-bit seed of what these parts name: a hash of them."""
    text = "/".join(map(str, name)).encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "little") >> 1
