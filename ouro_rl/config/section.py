"""What every section of a config is made of: strictness, and the names of user functions."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict


def function_name(name: str) -> str:
    """A function of the user by name; ValueError when it can be none. Whether it is there is seen before a job starts."""
    module, _, function = name.rpartition(":")
    if not module or not function.isidentifier():
        raise ValueError(f"{name!r} names no function; write module.path:function or path/to/file.py:function")
    return name


UserFunction = Annotated[str, AfterValidator(function_name)]


class Section(BaseModel):
    """Base of every section: no unknown keys, no silent conversions, no later changes.

    The text under a field is its documentation, and the help in an error message about it."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, strict=True, use_attribute_docstrings=True, allow_inf_nan=False
    )
