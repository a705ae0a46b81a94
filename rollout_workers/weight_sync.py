"""Transfer of weights from the trainer to the workers."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor, nn

from ouro_rl.core.errors import RunError
from ouro_rl.model.modeling_ouro import GATE_PARAMETERS
from rollout_workers.packed import Entry, Packed

ALIGNMENT = 64
"""Bytes: every tensor begins at a multiple of it, so that a copy runs at full speed."""
WORD = 8
BLOCK = 512
"""Words per sum of a fingerprint: 4 KiB."""


def tensors_of(packed: Packed) -> dict[str, Tensor]:
    """Views of packed weights, for reading only."""
    with warnings.catch_warnings():  # torch warns that it does not know of arrays for reading only
        warnings.filterwarnings("ignore", "The given NumPy array is not writable")
        data = torch.from_numpy(packed.data)
    return {name: _view(data, entry) for name, entry in packed.entries.items()}


def pack(state: Mapping[str, Tensor], dtype: torch.dtype) -> Packed:
    """A state dict in the workers' dtype, on the CPU: half the bytes to send where they compute in bf16. The exit gate
    is not rounded below fp32."""
    precise = dtype if dtype.itemsize >= torch.float32.itemsize else torch.float32
    dtypes = {name: precise if name.endswith(GATE_PARAMETERS) else dtype for name in state}
    entries, end = {}, 0
    for name, tensor in state.items():
        entries[name] = Entry(dtype=str(dtypes[name]).removeprefix("torch."), shape=tuple(tensor.shape), start=end)
        end += -(-tensor.numel() * dtypes[name].itemsize // ALIGNMENT) * ALIGNMENT
    data = torch.empty(end, dtype=torch.uint8)
    parts = {name: _view(data, entry) for name, entry in entries.items()}
    for name, tensor in state.items():
        parts[name].copy_(tensor.detach())
    return Packed(data=data.numpy(), entries=entries, fingerprint=fingerprint(parts))


def _view(data: Tensor, entry: Entry) -> Tensor:
    dtype = getattr(torch, entry.dtype)
    size = int(np.prod(entry.shape, dtype=np.int64)) * dtype.itemsize
    return data[entry.start : entry.start + size].view(dtype).view(entry.shape)


@torch.no_grad()
def load_state(model: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Copy `state` into the model in place, each tensor cast to the dtype that the model has there. Raises RunError
    when names or shapes differ."""
    own = model.state_dict()
    odd = sorted(own.keys() ^ state.keys()) or [name for name in own if own[name].shape != state[name].shape]
    if odd:
        raise RunError(f"published weights do not fit the rollout workers' model: {', '.join(odd[:3])}")
    for name, tensor in own.items():
        tensor.copy_(state[name])


def fingerprint(state: Mapping[str, Tensor]) -> str:
    """Hash of all weights of a state dict: names, types, shapes, and the sums of blocks of bytes.

    It finds weights that were not loaded, or were damaged on the way, at the speed of the memory; a cryptographic hash
    of every byte would take longer than the transfer."""
    digest = hashlib.blake2b(digest_size=16)
    for name, tensor in sorted(state.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)} ".encode())
        data = tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy()
        whole = len(data) // (WORD * BLOCK) * WORD * BLOCK
        digest.update(data[:whole].view(np.uint64).reshape(-1, BLOCK).sum(axis=1, dtype=np.uint64).data)
        digest.update(data[whole:].data)
    return digest.hexdigest()
