"""Loads user functions, named in a config as `module.path:function` or `path/to/file.py:function`."""

from __future__ import annotations

import difflib
import functools
import hashlib
import importlib
import importlib.util
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

from ouro_rl.core.errors import UserError
from ouro_rl.core.own_names import refuse_clash

FORMS = "name it as module.path:function or path/to/file.py:function"
MOST_OF_AN_ERROR = 300
"""How many characters of the user's own error are shown."""

REWARD_MEMORY_MB = 4096
"""Memory that the process of a user's reward function may have for itself, in MiB, unless the config sets it."""


@functools.cache
def load_function(name: str, key: str) -> Callable[..., Any]:
    """The function `name`, loaded once per process. Errors begin with `key`, the config key or kind of function.

    Raises a UserError of at most two lines if it cannot be loaded."""
    subject = f"{key} {name!r}"
    source, _, attribute = name.rpartition(":")
    if not source or not attribute:
        raise UserError(f"{subject}: no {'function' if source else 'module'} is named; {FORMS}")
    module = _load_file(subject, Path(source)) if source.endswith(".py") else _load_module(subject, source)
    function = getattr(module, attribute, None)
    if function is None:
        have = [entry for entry, value in vars(module).items() if callable(value) and not entry.startswith("_")]
        near = difflib.get_close_matches(attribute, have, n=1)
        hint = f"did you mean {near[0]!r}?" if near else "check the name after the colon"
        raise UserError(f"{subject}: {source} has no function {attribute!r}; {hint}")
    if isinstance(function, type):
        raise UserError(f"{subject}: {attribute!r} is a class; name a function, or an object: x = {attribute}()")
    if not callable(function):
        raise UserError(f"{subject}: {attribute!r} is of type {type(function).__name__}, not a function; {FORMS}")
    return function


def _load_module(subject: str, source: str) -> ModuleType:
    refuse_clash(source, subject)
    _search_in(Path.cwd())  # not on the console script's sys.path
    try:
        return importlib.import_module(source)
    except (Exception, SystemExit) as error:  # a user's module may raise anything
        _explain_clash(error, subject)
        missing = isinstance(error, ModuleNotFoundError) and source.startswith(error.name or "\0")
        fix = (
            f"run from the folder that holds {source.split('.')[0]}, or name the file: path/to/file.py:function"
            if missing
            else f"fix {source} so that `python -c 'import {source}'` works"
        )
        raise UserError(f"{subject} cannot be imported: {_describe(error)}\n  {fix}") from error


def _load_file(subject: str, path: Path) -> ModuleType:
    """The module of a file; all functions of a file share it."""
    if not path.is_file():
        raise UserError(f"{subject}: there is no file {path} (looked in {Path.cwd()}); correct the path")
    try:
        return sys.modules.get(_module_name(path.resolve())) or _execute_file(path.resolve())
    except (Exception, SystemExit) as error:
        _explain_clash(error, subject)
        fix = f"fix {path.name} so that `python {path.name}` works"
        raise UserError(f"{subject} cannot be imported: {_describe(error)}\n  {fix}") from error


def _describe(error: BaseException) -> str:
    """One line: the error and where it was raised."""
    line = f"{type(error).__name__}: {error}".splitlines()[0][:MOST_OF_AN_ERROR]
    if isinstance(error, SyntaxError):
        return line  # its message already names file and line
    frames = traceback.extract_tb(error.__traceback__)
    theirs = [frame for frame in frames if "importlib" not in frame.filename and frame.filename != __file__]
    return f"{line} ({Path(theirs[-1].filename).name}:{theirs[-1].lineno})" if theirs else line


def _explain_clash(error: BaseException, subject: str) -> None:
    """Raise UserError if an import failed because it wanted a user module that has the name of one of our packages."""
    if isinstance(error, ImportError) and error.name:
        refuse_clash(error.name, subject)


def _execute_file(path: Path) -> ModuleType:
    """Execute a file as a module and return it. Raises whatever the file raises."""
    _search_in(path.parent)  # so that a file can import modules next to it
    name = _module_name(path)
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None, path
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses and pickle look a module up by its name
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def _module_name(path: Path) -> str:
    return f"ouro_user_{path.stem}_{hashlib.blake2b(bytes(path), digest_size=4).hexdigest()}"


def _search_in(folder: Path) -> None:
    if str(folder) not in sys.path:
        sys.path.append(str(folder))
