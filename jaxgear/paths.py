"""Paths that a user writes, with `~` and variables, and addresses, which fsspec opens."""

import argparse
import os
import re
from pathlib import Path
from typing import Any

from jaxgear.errors import DataError, GearError, UsageError, first_line

_WHOLE = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
_EXTRAS = {"s3fs": "s3", "gcsfs": "gs", "huggingface_hub": "hf", "aiohttp": "http"}
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


def is_address(text: object) -> bool:
    """Whether this is the text of an address, not a path of this machine."""
    return isinstance(text, str) and _WHOLE.match(text) is not None


def place_argument(text: str) -> Path | str:
    """A path, or an address as it is, as the type of an argument of argparse."""
    return text if is_address(text) else Path(text)


def opened_address(address: str) -> tuple[Any, str]:
    """The file system of an address (fsspec), and its path in it.

    Raises:
        UsageError: no such kind of address, or a package for it is missing.
        DataError: it cannot be reached.
    """
    import fsspec.core

    try:
        return fsspec.core.url_to_fs(address)
    except ImportError as error:
        package = next((name for name in _EXTRAS if name in str(error)), None)
        how = f"pip install 'jaxgear[{_EXTRAS[package]}]'" if package else first_line(error)
        raise UsageError(f"{address}: its kind of address needs a package: {how}") from error
    except ValueError as error:
        raise UsageError(f"{address}: {first_line(error)}") from error
    except Exception as error:
        raise address_failure(address, error) from error


def address_failure(address: str, error: Exception) -> Exception:
    """The error to raise for one of a file system, which may be of any class."""
    if isinstance(error, MemoryError | GearError):
        return error
    missing = isinstance(error, FileNotFoundError)
    return DataError(f"{address}: {'not there' if missing else first_line(error)}")
