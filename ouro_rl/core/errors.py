"""Errors shared by all packages. What a user can fix is a `UserError`, whose message names the fix."""


class OuroRLError(Exception):
    """Base class of every error that this project raises on purpose."""


class UserError(OuroRLError):
    """The user's input is wrong. The command line prints the message without a traceback and exits with status 2."""


class RunError(OuroRLError):
    """A run had to stop (a limit was exceeded, a worker died). The message goes to stderr; the exit status is 1."""
