"""Line breaks in texts that are given on a command line."""

from __future__ import annotations


def line_breaks(text: str) -> str:
    """`text` with the two characters `\\n` made a line break: a shell passes them as they are typed."""
    return text.replace("\\n", "\n")
