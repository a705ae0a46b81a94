"""Differences between releases of transformers, in one place: the name of the KV cache.

Up to 5.23, model outputs, `create_causal_mask` and `generate()` call it `past_key_values`, as the published Ouro code
does; from 5.24 on they call it `cache`. Our models take and return it under both names in every release."""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from typing import Any, TypeVar, dataclass_transform

from transformers.cache_utils import Cache
from transformers.masking_utils import create_causal_mask

CACHE_NAMES = ("cache", "past_key_values")


def _cache_name() -> str:
    for name in CACHE_NAMES:
        if name in inspect.signature(create_causal_mask).parameters:
            return name
    raise ImportError(
        f"create_causal_mask of this transformers release has no parameter named one of {CACHE_NAMES}; "
        "install a release that pyproject.toml allows"
    )


CACHE = _cache_name()
"""Its name in the installed transformers."""

Output = TypeVar("Output")


@dataclass_transform()
def model_output(cls: type[Output]) -> type[Output]:
    """Make a `ModelOutput` with a field `cache` a dataclass; the field gets this release's name, readable as both.

    The field keeps its position. (From 5.24 on `ModelOutput` itself provides the older name as a property.)"""
    if CACHE != "cache":
        cls.__annotations__ = {CACHE if name == "cache" else name: kind for name, kind in cls.__annotations__.items()}
        renamed: Any = cls
        setattr(renamed, CACHE, renamed.cache)
        renamed.cache = property(lambda output: getattr(output, CACHE))
    return dataclass(cls)


def named(cache: Cache | None) -> dict[str, Any]:
    """The cache as a keyword argument with this release's name."""
    return {CACHE: cache}


def given_cache(cache: Cache | None, past_key_values: Cache | None) -> Cache | None:
    """The cache of a call that may pass it under either name. Raises ValueError if both are given."""
    if cache is not None and past_key_values is not None:
        raise ValueError("pass the cache once: as `cache` or as `past_key_values`")
    return past_key_values if cache is None else cache
