"""Progress lines for slow steps that have no progress bar. They go to stderr, so stdout stays machine-readable."""

from __future__ import annotations

import os
import sys


def say(text: str) -> None:
    """Print what is being done; in distributed training only rank 0 prints."""
    if "LOCAL_RANK" not in os.environ or os.environ.get("RANK", "0") == "0":
        print(f"{text} ...", file=sys.stderr, flush=True)
