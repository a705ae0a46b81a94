"""The learning rates' schedule, as a function of the update alone: a resumed run needs none of its history."""

from __future__ import annotations

import math
from typing import Literal

ScheduleKind = Literal["constant", "linear", "cosine", "constant_with_warmup"]


def lr_share(kind: ScheduleKind, update: int, *, total: int, warmup: int) -> float:
    """The share in (0, 1] of the peak learning rate that update number `update` (from 0) of `total` is made with.

    The rate rises in `warmup` equal steps and reaches the peak in update `warmup - 1`. Then it falls, so that it would
    be 0 in the update after the last one: no update is made with rate 0, and none is without effect. Updates after the
    last have its share."""
    update = min(update, total - 1)
    if update < warmup:
        return (update + 1) / warmup
    left = (total - update) / max(1, total - warmup)
    if kind == "linear":
        return left
    if kind == "cosine":
        return 0.5 * (1 - math.cos(math.pi * left))
    return 1.0
