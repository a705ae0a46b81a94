"""Transfer of weights from the trainer to the workers."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from ouro_rl.core.errors import RunError
from ouro_rl.model.modeling_ouro import GATE_PARAMETERS


def packed(state: Mapping[str, Tensor], dtype: torch.dtype) -> dict[str, Tensor]:
    """The state dict in the workers' dtype, on the CPU: half the bytes to send where they compute in bf16. The exit
    gate is sent as it is."""
    return {
        name: tensor.detach().to("cpu", tensor.dtype if name.endswith(GATE_PARAMETERS) else dtype)
        for name, tensor in state.items()
    }


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


def fingerprint(model: nn.Module) -> str:
    """Hash of all weights: names, types, shapes and every byte."""
    digest = hashlib.blake2b(digest_size=16)
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)} ".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()
