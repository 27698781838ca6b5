"""Errors that a user can cause or meet. Each has a one-line message and an exit code.

The message names the file or flag and says what to do. `cli.exit_with` prints it and exits with
`exit_code`; only `--debug` shows a traceback.
"""

from jaxgear.text import printable


class GearError(Exception):
    """Base of every error that jaxgear reports in one line."""

    exit_code = 1


class UsageError(GearError):
    """A flag or configuration value that cannot work."""

    exit_code = 2


class DivergedError(GearError):
    """Training produced a loss or gradient that is not finite."""

    exit_code = 3


class DataError(GearError):
    """Pictures, folders or labels that cannot be trained or evaluated on."""

    exit_code = 4


class CheckpointError(GearError):
    """A checkpoint, bundle or weights file that is missing, damaged or does not fit."""

    exit_code = 5


def first_line(error: BaseException) -> str:
    """The first line of an error's message, or its type, to quote in a message of ours."""
    text = str(error).strip().partition("\n")[0][:300]
    return printable(text or type(error).__name__)
