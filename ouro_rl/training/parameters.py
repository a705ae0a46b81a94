"""The two parts of a model that are trained apart: the exit gate, and everything else (the body)."""

from __future__ import annotations

from torch import nn

from ouro_rl.model.modeling_ouro import GATE_PARAMETERS


def gate_and_body(model: nn.Module) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    """The trainable parameters of both parts, also of a wrapped model."""
    named = [(name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad]
    gate = [parameter for name, parameter in named if name.endswith(GATE_PARAMETERS)]
    return gate, [parameter for name, parameter in named if not name.endswith(GATE_PARAMETERS)]


def freeze(model: nn.Module, *, gate: bool, body: bool) -> None:
    """Freeze the gate, or the body. Without trainable weights in the layers a replay keeps nothing for a backward
    pass through them."""
    for name, parameter in model.named_parameters():
        if gate if name.endswith(GATE_PARAMETERS) else body:
            parameter.requires_grad_(False)
