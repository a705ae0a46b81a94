"""Removes prompts that are too long for the model or for the memory of keys and values, and reports them."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from ouro_rl.core.errors import UserError
from ouro_rl.core.rollout import Prompt
from rollout_workers.engine.limits import PromptLimit

logger = logging.getLogger(__name__)


def keep_fitting(prompts: Sequence[Prompt], limit: PromptLimit, where: str) -> list[Prompt]:
    """The prompts within the limit; a warning counts the others, which would stop a run when they come up. Raises
    UserError if none is left."""
    kept = [prompt for prompt in prompts if len(prompt.token_ids) <= limit.tokens]
    if not kept:
        shortest = min(len(prompt.token_ids) for prompt in prompts)
        raise UserError(
            f"{where}: none of {len(prompts):,} prompts fits, the shortest has {shortest:,} tokens;\n  {limit.reason}"
        )
    if len(kept) < len(prompts):
        longest = max(prompts, key=lambda prompt: len(prompt.token_ids))
        logger.warning(
            "%s: left out %d of %d prompts, longer than %d tokens (row %d has %d); %s",
            where, len(prompts) - len(kept), len(prompts), limit.tokens, longest.index + 1, len(longest.token_ids),
            limit.reason,
        )  # fmt: skip
    return kept
