"""Errors shared by all packages. What a user can fix is a `UserError`, whose message names the fix."""

MOST_OF_A_LINE = 200


class OuroRLError(Exception):
    """Base class of every error that this project raises on purpose."""


class UserError(OuroRLError):
    """The user's input is wrong. The command line prints the message without a traceback and exits with status 2."""


class RunError(OuroRLError):
    """A run had to stop (a limit was exceeded, a worker died). The message goes to stderr; the exit status is 1."""


def first_line(error: BaseException) -> str:
    """The first line of an error's message, for a message of our own: blanks joined, at most `MOST_OF_A_LINE`
    characters; the error's type if it says nothing."""
    return " ".join((str(error).strip().splitlines() or [type(error).__name__])[0].split())[:MOST_OF_A_LINE]
