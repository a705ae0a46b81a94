"""The command line, `ouro-rl`: reads arguments and configs, tells mistakes at once, and only then imports what is heavy.

Exit status: 0 done, 1 the run failed, 2 the user's input is wrong, 130 interrupted, 141 nobody reads the output any more.
"""

from __future__ import annotations

import logging
import os
import select
import sys
from collections.abc import Sequence

from ouro_rl.cli.parser import parse
from ouro_rl.core.errors import RunError, UserError
from ouro_rl.core.own_names import pin_own_packages
from ouro_rl.kernels import processor

MESSAGE_LINES = 3
QUIET = {
    "TOKENIZERS_PARALLELISM": "false",  # rollout workers fork after the tokenizer was used
    "TRANSFORMERS_VERBOSITY": "error",
    "TRANSFORMERS_NO_ADVISORY_WARNINGS": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "DATASETS_VERBOSITY": "error",
    "TRL_EXPERIMENTAL_SILENCE": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_DISABLE_IMPORT_WARNING": "1",
}
"""Other libraries' chatter, off unless the user has set these."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; `argv` without the program's name (default: the process's own). Returns the exit status."""
    pin_own_packages()
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="backslashreplace")  # models and plug-ins say what no encoding holds
    try:
        arguments = parse(argv)
        processor.level()  # a level that is not there is refused before anything is imported
        status = arguments.run(arguments)
        sys.stdout.flush()
        return status
    except UserError as error:
        return _complain(error, 2)
    except RunError as error:
        return _complain(error, 1)
    except KeyboardInterrupt:
        print("ouro-rl: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:
        if not _output_is_cut():
            raise
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # the interpreter flushes once more at its end
        return 141
    except SystemExit as stop:  # argparse, after --help or a mistake
        return stop.code if isinstance(stop.code, int) else 2


def _output_is_cut() -> bool:
    """Whether standard output is a pipe whose reader has gone, as `head` does."""
    poll = select.poll()
    poll.register(1, 0)
    return any(event & select.POLLERR for _, event in poll.poll(0))


def _complain(error: Exception, status: int) -> int:
    lines = [line for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    print("ouro-rl: " + "\n".join(lines[:MESSAGE_LINES]), file=sys.stderr)
    return status


# --- commands ----------------------------------------------------------------------------------------------------------


# --- arguments ---------------------------------------------------------------------------------------------------------
