"""Functions of the user, named in a config as `module.path:function` or `path/to/file.py:function`."""

from __future__ import annotations

import difflib
import functools
import hashlib
import importlib
import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

from ouro_rl.core.errors import UserError
from ouro_rl.core.own_names import refuse_clash

FORMS = "name it as module.path:function or path/to/file.py:function"


@functools.cache
def load_function(name: str, key: str) -> Callable[..., Any]:
    """The function `name`; `key` is the config key that names it, for the errors.

    Raises UserError of at most two lines when it cannot be had. Loaded once in a process."""
    source, _, attribute = name.rpartition(":")
    if not source or not attribute:
        raise UserError(f"{key}: {name!r} names no {'function' if source else 'module'}; {FORMS}")
    if not source.endswith(".py"):
        refuse_clash(source, f"{key}: {name!r}")
    try:
        module = _file(Path(source)) if source.endswith(".py") else import_module(source)
    except (Exception, SystemExit) as error:  # a user's module may raise anything
        explain_clash(error, f"{key}: {name!r}")
        what = " ".join(f"{type(error).__name__}: {error}".split())[:300]
        raise UserError(f"{key}: {name!r} cannot be imported ({what});\n  {FORMS}") from error
    function = getattr(module, attribute, None)
    if not callable(function):
        have = [entry for entry, value in vars(module).items() if callable(value) and not entry.startswith("_")]
        near = difflib.get_close_matches(attribute, have, n=1)
        hint = f"did you mean {near[0]!r}?" if near else "check the name after the colon"
        raise UserError(f"{key}: {source} has no function {attribute!r}; {hint}")
    return function


def explain_clash(error: BaseException, where: str) -> None:
    """UserError when an import failed because it asked for a module of the user's by a name that is ours."""
    if isinstance(error, ImportError) and error.name:
        refuse_clash(error.name, where)


def import_module(source: str) -> ModuleType:
    """A module by its path, also where the console script's own sys.path has its own folder and not the user's."""
    _search_in(Path.cwd())
    return importlib.import_module(source)


def execute_file(path: Path) -> ModuleType:
    """The module of a file, executed now. Raises what the file raises."""
    path = path.resolve()
    _search_in(path.parent)  # so that a file can import its neighbours
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


def _file(path: Path) -> ModuleType:
    """Functions of one file share its module."""
    if not path.is_file():
        raise FileNotFoundError(f"no file {path} (looked in {Path.cwd()})")
    return sys.modules.get(_module_name(path.resolve())) or execute_file(path)


def _module_name(path: Path) -> str:
    return f"ouro_user_{path.stem}_{hashlib.blake2b(bytes(path), digest_size=4).hexdigest()}"


def _search_in(folder: Path) -> None:
    if str(folder) not in sys.path:
        sys.path.append(str(folder))
