"""Transfer of weights from the trainer to the workers."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Mapping

import torch
from torch import Tensor, nn

from ouro_rl.core.errors import RunError
from ouro_rl.model.modeling_ouro import GATE_PARAMETERS
from rollout_workers.packed import Packed, Part, fingerprint_of

PART_BYTES = 2**27
"""Tensors are sent together up to this size: of what is converted, no more than this exists at a time."""


def tensors_of(parts: Iterable[Part]) -> dict[str, Tensor]:
    """Views of packed weights, for reading only."""
    with warnings.catch_warnings():  # torch warns that it does not know of arrays for reading only
        warnings.filterwarnings("ignore", "The given NumPy array is not writable")
        return {name: _tensor(packed) for part in parts for name, packed in part.items()}


def pack(state: Mapping[str, Tensor], dtype: torch.dtype, part_bytes: int = PART_BYTES) -> Iterator[Part]:
    """A state dict in the workers' dtype, on the CPU: half the bytes to send where they compute in bf16. The exit gate
    is not rounded below fp32.

    What is on the CPU and of that dtype is not copied: the arrays are views."""
    precise = dtype if dtype.itemsize >= torch.float32.itemsize else torch.float32
    part: dict[str, Packed] = {}
    size = 0
    for name, tensor in state.items():
        packed = _packed(tensor.detach().to("cpu", precise if name.endswith(GATE_PARAMETERS) else dtype))
        if part and size + packed.data.nbytes > part_bytes:
            yield part
            part, size = {}, 0
        part[name] = packed
        size += packed.data.nbytes
    yield part


def _packed(tensor: Tensor) -> Packed:
    """A tensor on the CPU; a view where it is contiguous."""
    data = tensor.contiguous().flatten().view(torch.uint8).numpy()
    return Packed(dtype=str(tensor.dtype).removeprefix("torch."), shape=tuple(tensor.shape), data=data)


def _tensor(packed: Packed) -> Tensor:
    return torch.from_numpy(packed.data).view(getattr(torch, packed.dtype)).view(packed.shape)


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
    """Hash of all weights of a state dict: names, types, shapes, bytes. It finds weights that were not loaded, or were
    damaged on the way."""
    return fingerprint_of({name: _packed(tensor.detach().cpu()).digest() for name, tensor in state.items()})
