"""Removes prompts whose gold answer the `math` reward cannot parse, and reports them."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from ouro_rl.core.errors import UserError
from ouro_rl.core.rollout import Prompt
from rewards.math_grader.golds import check_golds

logger = logging.getLogger(__name__)


MOST_LISTED = 10
"""Maximum number of gold answers listed in a warning."""


def keep_gradable(
    prompts: Sequence[Prompt], where: str, *, workers: int = 2, kwargs: Mapping[str, Any] | None = None
) -> list[Prompt]:
    """The prompts whose gold answer the `math` reward can grade against; a warning counts and lists the others.
    Raises UserError if none is left."""
    golds = [prompt.columns.get("answer", prompt.columns.get("solution")) for prompt in prompts]
    if all(gold is None for gold in golds):
        return list(prompts)  # no such answers; a reward that needs them raises its own error
    bad = check_golds(["" if gold is None else gold for gold in golds], workers=workers, kwargs=kwargs)
    if not bad:
        return list(prompts)
    listed = [f"  row {prompts[i].index + 1}: {str(golds[i])[:60]!r} ({reason})" for i, reason in bad.items()]
    if len(bad) == len(prompts):
        raise UserError(
            f"{where}: none of the {len(prompts)} gold answers can be graded; fix them, the first is\n{listed[0]}"
        )
    more = [f"  and {len(listed) - MOST_LISTED} more"] if len(listed) > MOST_LISTED else []
    logger.warning(
        "%s: left out %d of %d prompts, whose gold answers do not grade as equal to themselves:\n%s",
        where,
        len(bad),
        len(prompts),
        "\n".join(listed[:MOST_LISTED] + more),
    )
    return [prompt for i, prompt in enumerate(prompts) if i not in bad]
