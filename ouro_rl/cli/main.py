"""Entry point of the command line `ouro-rl`: reads arguments and configs, reports mistakes at once, and only then
imports heavy packages.

Exit status: 0 success, 1 the run failed, 2 the user's input is wrong, 130 interrupted, 141 the reader of the output has
gone (broken pipe).
"""

from __future__ import annotations

import atexit
import functools
import gc
import logging
import os
import select
import sys
from collections.abc import Sequence

from ouro_rl.cli.parser import parse
from ouro_rl.core.disk_full import disk_full
from ouro_rl.core.errors import RunError, UserError
from ouro_rl.core.own_names import pin_own_packages
from ouro_rl.kernels import processor

MESSAGE_LINES = 3
ROOM = "if it is full, make room, then start again; training goes on after its last checkpoint with --resume"
QUIET = {
    "TOKENIZERS_PARALLELISM": "false",  # rollout workers fork after the tokenizer has been used
    "TRANSFORMERS_VERBOSITY": "error",
    "TRANSFORMERS_NO_ADVISORY_WARNINGS": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "DATASETS_VERBOSITY": "error",
    "TRL_EXPERIMENTAL_SILENCE": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_DISABLE_IMPORT_WARNING": "1",
}
"""Turns off messages of other libraries, unless the user has set these variables."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command. `argv`: arguments without the program name (default: `sys.argv[1:]`). Returns the exit
    status."""
    pin_own_packages()
    _end_soon()
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="backslashreplace")  # models may print what the encoding lacks
    try:
        _check_working_directory()
        arguments = parse(argv)
        processor.level()  # refuses an unavailable kernel level before anything is imported
        status = arguments.run(arguments)
        sys.stdout.flush()
        return status
    except UserError as error:
        return _report(error, 2)
    except RunError as error:
        return _report(error, 1)
    except KeyboardInterrupt:
        print("ouro-rl: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:
        if not _reader_has_gone():
            raise
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # the interpreter flushes again at exit
        return 141
    except SystemExit as stop:  # argparse, after --help or a mistake
        return stop.code if isinstance(stop.code, int) else 2
    except Exception as error:
        if (reason := disk_full(error)) is None:
            raise
        return _report(RunError(f"cannot write to the disk ({reason});\n  {ROOM}"), 1)


@functools.cache
def _end_soon() -> None:
    """Once for this process, however many commands it runs: otherwise Python looks through all objects of torch and
    others again before it ends, which takes 1.5 s."""
    atexit.register(_freeze)


def _freeze() -> None:
    if "triton" not in sys.modules:  # newer ones report at the end, in fifty lines, whatever was not freed
        gc.freeze()


def _check_working_directory() -> None:
    try:
        os.getcwd()
    except FileNotFoundError:
        raise UserError("the working directory has been removed; go to another one (cd)") from None


def _reader_has_gone() -> bool:
    """Whether stdout is a pipe that its reader has closed, as `head` does."""
    poll = select.poll()
    poll.register(1, 0)
    return any(event & select.POLLERR for _, event in poll.poll(0))


def _report(error: Exception, status: int) -> int:
    lines = [line for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    print("ouro-rl: " + "\n".join(lines[:MESSAGE_LINES]), file=sys.stderr)
    return status
