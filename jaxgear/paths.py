"""Paths that a user writes, with `~` and variables."""

import argparse
import os
import re
from pathlib import Path

from jaxgear.errors import UsageError

_ADDRESS = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):/+")  # two letters or more: C:/ is a drive
_UNSET = re.compile(r"\$(?:\{(\w+)\}|(\w+))(?=[/\\]|$)")  # only a whole name in a path


def expanded(path: str) -> str:
    """A path with `~` and environment variables expanded.

    A shell does not expand them in `--data=~/pictures` or in a file of settings.

    Raises:
        UsageError: it is an address such as s3://bucket, or its user or variable does not exist;
            unless a file has that name.
    """
    full = os.path.expanduser(os.path.expandvars(path))  # noqa: PTH111 - `Path` drops the slashes
    if os.path.lexists(full):
        return full
    if address := _ADDRESS.match(full):
        rest = full[address.end() :]
        raise UsageError(
            f"{address[1]}://{rest}: an address, not a path of this machine; copy files from or to "
            "it with its own tools"
        )
    if full.startswith("~"):
        raise UsageError(f"{path}: there is no such user")
    if unset := _UNSET.search(full):
        raise UsageError(f"{path}: the variable {unset[1] or unset[2]} is not set")
    return full


def path_argument(text: str) -> Path:
    """`expanded`, as the type of an argument of argparse."""
    try:
        return Path(expanded(text))
    except UsageError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
