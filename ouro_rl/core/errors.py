"""Errors that cross package borders. What a user can fix is a `UserError`; its text names the fix."""


class OuroRLError(Exception):
    """Base of every error that this project raises on purpose."""


class UserError(OuroRLError):
    """The user's input is wrong: the command line prints the message, no traceback, and exits with status 2."""


class RunError(OuroRLError):
    """A run had to stop (a limit was passed, a worker is gone): message on stderr, exit status 1."""
