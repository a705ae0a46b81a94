"""A hash of the prompts of a run, by which other data under the same path is noticed when the run is resumed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from typing import Any

from ouro_rl.core.rollout import Prompt


def prompts_record(prompts: Sequence[Prompt]) -> dict[str, Any]:
    """`count` and `sha256` over the index, token ids and columns of every prompt, in their order.

    Columns of types that JSON does not have (dates, images) count by their type alone."""
    digest = hashlib.sha256()
    for prompt in prompts:
        row = [prompt.index, prompt.token_ids, dict(prompt.columns)]
        digest.update(json.dumps(row, sort_keys=True, default=lambda value: type(value).__name__).encode() + b"\n")
    return {"count": len(prompts), "sha256": digest.hexdigest()}
