"""Base class of config sections, and the type of user functions' names."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict

from ouro_rl.core.shell_text import line_breaks


def function_name(name: str) -> str:
    """Validate the form of a user function's name; raises ValueError. The preflight checks that the function exists."""
    module, _, function = name.rpartition(":")
    if not module or not function.isidentifier():
        raise ValueError(f"{name!r} does not name a function; write module.path:function or path/to/file.py:function")
    return name


UserFunction = Annotated[str, AfterValidator(function_name)]
SHELL_TEXT = AfterValidator(line_breaks)
"""For a text in which the two characters `\\n` are a line break, because a shell cannot easily pass one."""


class Conflict(ValueError):
    """Values that do not fit together. `keys` are the dotted keys of these values, seen from the section that raises
    it: the loader names the files that set them."""

    def __init__(self, text: str, *keys: str) -> None:
        super().__init__(text)
        self.keys = keys


class Section(BaseModel):
    """Base class of every section: no unknown keys, no silent conversions, immutable.

    The docstring under a field is its documentation and its help text in error messages."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, strict=True, use_attribute_docstrings=True, allow_inf_nan=False
    )
