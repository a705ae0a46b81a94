"""Which tasks are never trained on: a split by a hash of the text, so that it holds whatever draws the tasks."""

from __future__ import annotations

import hashlib

HELD_OUT_SHARE = 0.1
_HASHES = 2**64
"""How many values the eight bytes of a hash take."""


def is_held_out(text: str) -> bool:
    digest = hashlib.sha256(text.encode()).digest()
    return int.from_bytes(digest[:8], "big") < HELD_OUT_SHARE * _HASHES
