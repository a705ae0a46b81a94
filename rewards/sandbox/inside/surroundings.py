"""What a program finds around it: the things that a Python interpreter started with `python solution.py` would have."""

from __future__ import annotations

import _sitebuiltins
import _thread
import atexit
import builtins
import contextlib
import io
import linecache
import os
import resource
import sys
import threading
import types
from typing import Any

_FILE = "solution.py"
_STREAMS = {
    f"{folder}{name}": number
    for number, word in enumerate(("stdin", "stdout", "stderr"))
    for folder, name in (("/dev/", word), ("/dev/fd/", number), ("/proc/self/fd/", number))
}
"""Files that are the standard streams. They are links into /proc, which the sandbox does not have."""


def make_module(name: str, source: str) -> types.ModuleType:
    """The module in which the program runs. name: `__main__` for a script. Arguments, file name and built-in functions
    are as for a file that was started."""
    module = types.ModuleType(name)
    path = os.path.join(os.getcwd(), _FILE)
    module.__file__ = path
    vars(module)["__builtins__"] = builtins
    sys.modules[name] = module  # dataclasses, pickle and typing look up a module by its name
    sys.argv = [_FILE]
    if hasattr(sys, "set_int_max_str_digits"):
        sys.set_int_max_str_digits(0)  # a limit against hostile input; here time and memory are limited
    _bound_stacks()
    for word in ("exit", "quit"):  # like `help`, from `site`, which the sandbox does not run
        setattr(builtins, word, _sitebuiltins.Quitter(word, "Ctrl-D (i.e. EOF)"))
    builtins.help = _sitebuiltins._Helper()
    linecache.cache[path] = (len(source), None, source.splitlines(keepends=True), path)  # for inspect and tracebacks
    return module


def _bound_stacks() -> None:
    """Let threads ask for stacks of any size, as programs with deep recursion do to be safe: they get what fits into
    the memory, since here a stack counts before it is used."""
    plain = threading.stack_size
    most = resource.getrlimit(resource.RLIMIT_AS)[0] // 2
    if most > 0:
        _thread.stack_size = threading.stack_size = lambda size=0: plain(min(size, most))


def open_standard_streams() -> None:
    """Make descriptors 0 to 2 the standard streams, under all their names."""
    sys.stdin = open(0, encoding="utf-8", closefd=False)
    sys.stdout = open(1, "w", encoding="utf-8", closefd=False)
    sys.stderr = open(2, "w", encoding="utf-8", errors="replace", closefd=False)
    # Final for everybody but who starts an interpreter, which is what happens here.
    sys.__stdin__ = sys.stdin  # type: ignore[misc]
    sys.__stdout__ = sys.stdout  # type: ignore[misc]
    sys.__stderr__ = sys.stderr  # type: ignore[misc]
    _name_the_streams()


def _name_the_streams() -> None:
    open_file, open_descriptor = io.open, os.open

    def stream(file: Any) -> int | None:
        number = _STREAMS.get(os.fspath(file)) if isinstance(file, str | os.PathLike) else None
        return None if number is None else os.dup(number)

    def named_open(file: Any, *arguments: Any, **keywords: Any) -> Any:
        number = stream(file)
        return open_file(file if number is None else number, *arguments, **keywords)

    def named_os_open(path: Any, *arguments: Any, **keywords: Any) -> int:
        number = stream(path)
        return open_descriptor(path, *arguments, **keywords) if number is None else number

    builtins.open = io.open = named_open
    os.open = named_os_open


def finish() -> None:
    """Do what the interpreter does at exit, since scripts may rely on it. A program may have closed its streams, or put
    others in their place."""
    threading._shutdown()  # type: ignore[attr-defined] # private, so not in the stubs
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.__stdout__):
        if stream is not None and not _is_closed(stream):
            with contextlib.suppress(AttributeError):  # a program's own stream may have no `flush`
                stream.flush()


def _is_closed(stream: Any) -> bool:
    """Whether there is nothing to flush; also of a stream whose buffer was given to another (`detach`)."""
    try:
        return bool(getattr(stream, "closed", False))
    except ValueError:
        return True
