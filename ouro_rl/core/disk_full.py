"""Telling a full disk from other errors: each library reports it in its own way. Does not import torch."""

from __future__ import annotations

import errno
import os
import re

_NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_OF_RUST = re.compile(r"\(os error (\d+)\)")
"""As safetensors and tokenizers end their messages."""
_OF_TORCH = re.compile(r"PytorchStreamWriter failed|unexpected pos \d+ vs \d+|ios(?:_base)?::clear")
"""`torch.save`, which does not say why it could not write; the last is its C++ stream's, for the last few bytes."""


def disk_full(error: BaseException) -> str | None:
    """In a few words, what kept this from being written if there is no room for it; None if that is not the error."""
    if isinstance(error, OSError) and error.errno in _NO_ROOM:
        return os.strerror(error.errno)
    if (found := _OF_RUST.search(str(error))) and int(found[1]) in _NO_ROOM:
        return os.strerror(int(found[1]))
    return "torch could not write a file to its end" if _OF_TORCH.search(str(error)) else None
