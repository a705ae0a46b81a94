"""Logit processors of the user: functions that change a token's logits before temperature and filters.

    def processor(logits, token_ids):
        '''logits: fp32 tensor [n, vocab], may be changed in place. token_ids: n lists, all tokens of each row so far, prompt and
        completion. Returns logits [n, vocab]; -inf forbids a token.'''

A processor is part of the policy: the worker calls it on the rows that are to get a token, the trainer on the same rows again, in
other company. So each row of the result must depend on that row's logits and tokens alone, and on nothing else (no state, no
randomness): `ouro-rl check` shows a processor that breaks this as a log-prob gap. Gradients flow through what it does with torch.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ouro_rl.core.errors import RunError
from ouro_rl.core.user_functions import load_function

KEY = "rollout.logit_processors"


def process_logits(names: Sequence[str], logits: Tensor, prefixes: Sequence[Sequence[int]]) -> Tensor:
    """fp32 logits [n, vocab] after every processor of `names`, first to last; `prefixes`: the tokens of each row so far.

    Raises RunError that names the processor when one fails, returns another shape, or leaves a row without a possible token."""
    for name in names:
        function, shape = load_function(name, KEY), logits.shape
        try:
            logits = function(logits, [list(prefix) for prefix in prefixes])
        except Exception as error:  # a user's function may raise anything
            raise RunError(f"{KEY}: {name} raised {type(error).__name__}: {error}") from error
        if not isinstance(logits, Tensor) or logits.shape != shape:
            what = f"a tensor {list(logits.shape)}" if isinstance(logits, Tensor) else type(logits).__name__
            raise RunError(f"{KEY}: {name} returned {what} for logits {list(shape)}; return logits of the same shape")
        logits = logits.float()
        if not torch.isfinite(logits.detach().amax(-1)).all():
            raise RunError(
                f"{KEY}: {name} left a row without a finite largest logit; leave at least one token possible"
            )
    return logits
