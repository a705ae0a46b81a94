"""Early stop of hopeless samples: repetition, low mean log-prob, or the user's own function.

The decision depends on one completion alone, at lengths that it determines itself, so it is batch-invariant.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from ouro_rl.core.errors import RunError
from ouro_rl.core.sampling_params import EarlyStop
from ouro_rl.core.user_functions import load_function

KEY = "rollout.early_stop.hook"


class EarlyStopper:
    """The tests of an `EarlyStop` rule. Raises UserError for a hook that cannot be imported."""

    def __init__(self, rule: EarlyStop):
        self.rule = rule
        self.hook = None if rule.hook is None else load_function(rule.hook, KEY)

    def hopeless(self, completion_ids: Tensor, token_logprobs: Tensor) -> bool:
        """Whether to stop the sample, given its tokens and their log-probs so far, [n] each. Raises RunError when the
        hook fails."""
        rule = self.rule
        if rule.repeat_window is not None and repeats(
            completion_ids[-rule.repeat_window :].tolist(), rule.repeat_window
        ):
            return True
        if rule.min_mean_logprob is not None and token_logprobs.double().mean().item() < rule.min_mean_logprob:
            return True
        if self.hook is None:
            return False
        try:
            return bool(self.hook(tuple(completion_ids.tolist()), tuple(token_logprobs.tolist())))
        except Exception as error:  # a user's function may raise anything
            raise RunError(f"{KEY}: {rule.hook} raised {type(error).__name__}: {error}; fix it") from error


def repeats(tokens: Sequence[int], window: int) -> bool:
    """Whether the last `window` tokens repeat one block at least twice: whether their period is at most window / 2.

    Uses the borders of Knuth, Morris and Pratt: the shortest period is the length minus the longest border.
    O(window)."""
    if len(tokens) < window:
        return False
    tail = tokens[-window:]
    borders = [0] * window
    for end in range(1, window):
        border = borders[end - 1]
        while border and tail[end] != tail[border]:
            border = borders[border - 1]
        borders[end] = border + (tail[end] == tail[border])
    return window - borders[-1] <= window // 2
