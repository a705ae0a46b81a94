"""Which tasks are held out from training: a split by a hash of the text, so it does not depend on how tasks are
drawn."""

from __future__ import annotations

import hashlib

HELD_OUT_SHARE = 0.1
_HASHES = 2**64
"""Number of values of the eight hash bytes that are used."""


def is_held_out(text: str) -> bool:
    digest = hashlib.sha256(text.encode()).digest()
    return int.from_bytes(digest[:8], "big") < HELD_OUT_SHARE * _HASHES
