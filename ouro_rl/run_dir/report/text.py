"""Text of the page: escaping, and how numbers are written."""

from __future__ import annotations

import math
from html import escape
from typing import Any


def escape_text(value: Any) -> str:
    """Escape text of a run, which is untrusted, for HTML element content and quoted attributes."""
    return escape(str(value), quote=True)


def number(value: Any) -> float | None:
    """`value` as a float if it is a finite number, else None (records may hold null, NaN or strings)."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if math.isfinite(value) else None


def percent(share: float) -> str:
    return f"{100 * share:.3g}\N{NO-BREAK SPACE}%"


def short(value: float) -> str:
    """Three significant digits, with thousands separators instead of an exponent, and a typographic minus sign."""
    text = f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
    return text.replace("-", "\N{MINUS SIGN}")


def depth_label(depth: int) -> str:
    return "1 loop" if depth == 1 else f"{depth} loops"


def duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s" if minutes else f"{seconds:.1f} s"
