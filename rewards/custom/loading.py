"""A user's reward function by its name, with an error that says what was looked for."""

from __future__ import annotations

import difflib
import os
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ouro_rl.core import user_functions
from ouro_rl.core.errors import UserError
from ouro_rl.core.own_names import refuse_clash

_FORMS = "name your own as module.path:function or path/to/file.py:function"


def load_function(name: str) -> Callable[..., Any]:
    """Import a custom reward here, in this process. UserError when it cannot be."""
    source, _, attribute = name.rpartition(":")
    if not source or not attribute:
        raise UserError(f"reward {name!r}: no {'function' if source else 'module'} is named; {_FORMS}.")
    module = _load_file(name, Path(source)) if source.endswith(".py") else _load_module(name, source)
    function = getattr(module, attribute, None)
    if function is None:
        have = [key for key, value in vars(module).items() if callable(value) and not key.startswith("_")]
        near = difflib.get_close_matches(attribute, have, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ": check the name after the colon."
        raise UserError(f"reward {name!r}: {source} has no function {attribute!r}{hint}")
    if not callable(function):
        raise UserError(f"reward {name!r}: {attribute!r} is of type {type(function).__name__}, not a function.")
    return function


def _load_module(name: str, source: str) -> Any:
    refuse_clash(source, f"reward {name!r}")
    try:
        return user_functions.import_module(source)
    except (Exception, SystemExit) as error:  # a user's module may raise anything
        user_functions.explain_clash(error, f"reward {name!r}")
        missing = isinstance(error, ModuleNotFoundError) and source.startswith(error.name or "\0")
        mend = (
            f"run from the folder that holds {source.split('.')[0]}, or name the file: path/to/file.py:function."
            if missing
            else f"mend {source} so that `python -c 'import {source}'` works."
        )
        raise UserError(f"reward {name!r} cannot be imported: {_describe(error)}\n{mend}") from error


def _load_file(name: str, path: Path) -> Any:
    if not path.is_file():
        raise UserError(f"reward {name!r}: there is no file {path} (looked in {Path.cwd()}): correct the path.")
    try:
        return user_functions.execute_file(path)
    except (Exception, SystemExit) as error:
        user_functions.explain_clash(error, f"reward {name!r}")
        raise UserError(
            f"reward {name!r} cannot be imported: {_describe(error)}\nmend {path.name} so that `python {path.name}` works."
        ) from error


def _describe(error: BaseException) -> str:
    """One line: what was raised, and where."""
    line = f"{type(error).__name__}: {error}".splitlines()[0][:300]
    if isinstance(error, SyntaxError):
        return line  # it names file and line itself
    frames = traceback.extract_tb(error.__traceback__)
    ours = (__file__, user_functions.__file__)
    own = [frame for frame in frames if "importlib" not in frame.filename and frame.filename not in ours]
    return f"{line} ({os.path.basename(own[-1].filename)}:{own[-1].lineno})" if own else line
