"""User-defined logit processors: functions that change a token's logits before temperature and filters.

    def processor(logits, token_ids):
        '''logits: fp32 tensor [n, vocab], may be changed in place. token_ids: n lists with all tokens of each row so
        far, prompt and completion. Returns logits [n, vocab]; -inf forbids a token.'''

A processor is part of the policy. The worker calls it on the rows that sample a token, and the trainer calls it on the
same rows again, in a different batch. Each row of the result must therefore depend only on that row's logits and tokens
(no state, no randomness); a processor that breaks this shows up in `ouro-rl check` as a log-prob gap. Gradients flow
through its torch operations.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ouro_rl.core.errors import RunError
from ouro_rl.core.user_functions import load_function

KEY = "rollout.logit_processors"


def process_logits(names: Sequence[str], logits: Tensor, prefixes: Sequence[Sequence[int]]) -> Tensor:
    """fp32 logits [n, vocab] after every processor in `names`, in order; `prefixes`: the tokens of each row so far.

    Raises RunError that names the processor if it fails, returns another shape, or forbids every token of a row."""
    for name in names:
        function, shape = load_function(name, KEY), logits.shape
        try:
            logits = function(logits, [list(prefix) for prefix in prefixes])
        except Exception as error:  # user code may raise anything
            raise RunError(f"{KEY}: {name} raised {type(error).__name__}: {error}") from error
        if not isinstance(logits, Tensor) or logits.shape != shape:
            what = f"a tensor {list(logits.shape)}" if isinstance(logits, Tensor) else type(logits).__name__
            raise RunError(f"{KEY}: {name} returned {what} for logits {list(shape)}; return logits of the same shape")
        logits = logits.float()
        if not torch.isfinite(logits.detach().amax(-1)).all():
            raise RunError(f"{KEY}: {name} left a row without a finite maximum logit; keep at least one token possible")
    return logits
