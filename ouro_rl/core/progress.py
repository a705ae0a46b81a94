"""A line about what takes seconds before there is a progress bar: on standard error, away from what a command prints for machines."""

from __future__ import annotations

import os
import sys


def say(text: str) -> None:
    """Tell what is being done; of several training processes the first one alone does."""
    if "LOCAL_RANK" not in os.environ or os.environ.get("RANK", "0") == "0":
        print(f"{text} ...", file=sys.stderr, flush=True)
