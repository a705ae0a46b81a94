"""A config as flat pairs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any


def flat_config(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """(dotted key, value as text), in the order of the config."""
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from flat_config(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", str(value)
