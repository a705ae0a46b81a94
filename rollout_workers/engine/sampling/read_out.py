"""The LM head after every loop, for exit rules that read it."""

from __future__ import annotations

import torch
from torch import Tensor

from ouro_rl.core.sampling_params import ExitRule
from ouro_rl.model.modeling_ouro import OuroForCausalLM
from ouro_rl.model.policy.read_out import satisfied


class ReadOut:
    """Decides exits by the head's distribution; keeps that of the loop before by slot, if the rule compares with it."""

    def __init__(self, model: OuroForCausalLM, rule: ExitRule, slots: int):
        weight = model.lm_head.weight
        self.model, self.rule = model, rule
        self.before: Tensor | None = None
        """fp32 [slots, vocab]: log-probs after the last loop."""
        if rule.kind == "kl":
            self.before = torch.zeros(slots, len(weight), dtype=torch.float32, device=weight.device)

    def exits(self, rows: Tensor, states: Tensor, loops: Tensor) -> Tensor:
        """Which of the samples in slots `rows` [n] may exit at `states` [n, hidden] after `loops` [n]: bool [n]."""
        log_probs = self.model.row_logits(states).float().log_softmax(-1)
        before = None if self.before is None else self.before.index_select(0, rows)
        leaving = satisfied(self.rule, log_probs, before, loops)
        if self.before is not None:
            self.before.index_copy_(0, rows, log_probs)
        return leaving
