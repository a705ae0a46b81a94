"""Progress lines for slow steps that have no progress bar. They go to stderr, so stdout stays machine-readable."""

from __future__ import annotations

import os
import sys


def say(text: str) -> None:
    """Print what is being done; in distributed training only rank 0 prints."""
    if "LOCAL_RANK" not in os.environ or os.environ.get("RANK", "0") == "0":
        print(f"{text} ...", file=sys.stderr, flush=True)


def short_number(value: float) -> str:
    """Three digits and a unit of a thousand: 1.25T, 840M, 12.5k, 7.25."""
    for unit, name in ((1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e4, "k")):
        if abs(value) >= unit:
            return f"{value / (1e3 if name == 'k' else unit):.3g}{name}"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
