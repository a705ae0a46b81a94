"""Exit rules that read the token distribution after every loop instead of the gate: baselines that need no training.

    confidence   exit when the most likely token has at least this probability
    entropy      exit when the distribution's entropy is at most so many nats
    kl           exit from loop 2 on, when the divergence KL(p_t || p_{t-1}) from the loop before is at most so many
                 nats (arXiv 2502.05171)

The distribution is the head's own, at temperature 1 and without filters. Its price is an LM head at every loop.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ouro_rl.core.sampling_params import ExitRule

READ_OUTS = ("confidence", "entropy", "kl")


def reads_out(rule: ExitRule) -> bool:
    return rule.kind in READ_OUTS


def satisfied(rule: ExitRule, log_probs: Tensor, before: Tensor | None, loops: Tensor) -> Tensor:
    """Which rows may exit: log-probs after this loop, and (for `kl`) after the one before, [n, vocab]; loops [n], from
    1 -> bool [n]."""
    if rule.kind == "confidence":
        return log_probs.amax(-1) >= torch.full_like(log_probs[:, 0], rule.level).log()
    probs = log_probs.exp()
    if rule.kind == "entropy":
        return -(probs * log_probs).sum(-1) <= rule.level
    assert rule.kind == "kl" and before is not None, "kl compares with the loop before"
    return (loops > 1) & ((probs * (log_probs - before)).sum(-1) <= rule.level)
