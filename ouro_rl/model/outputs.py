"""What the model's forward passes return."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from transformers.cache_utils import Cache
from transformers.modeling_outputs import ModelOutput

from ouro_rl.model.replay_probes import Probed
from ouro_rl.model.transformers_seams import model_output


@model_output
class OuroModelOutput(ModelOutput):
    """States of a forward pass; T is the number of loops that ran."""

    last_hidden_state: Tensor | None = None
    """[B, S, hidden]: after the last loop, or at each token's depth if depths were given."""
    cache: Cache | None = None
    loop_states: tuple[Tensor, ...] | None = None
    """T tensors [B, S, hidden], the normed state after each loop; None in a replay."""
    gate_logits: Tensor | None = None
    """fp32 [T, B, S]; see `ouro_rl.model.policy.exit_gate` for the exit distribution."""
    probed: Probed | None = None
    """All loops of the positions that were probed, if any were."""


@model_output
class OuroCausalLMOutput(ModelOutput):
    """`OuroModelOutput` plus logits [B, kept, vocab] of `last_hidden_state`, and the loss if labels were given."""

    loss: Tensor | None = None
    logits: Tensor | None = None
    reading: Any = None
    """The result of `read_head`, which replaces logits."""
    cache: Cache | None = None
    loop_states: tuple[Tensor, ...] | None = None
    gate_logits: Tensor | None = None
    probed: Probed | None = None
