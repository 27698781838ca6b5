"""Files that are complete or absent, never half-written."""

import contextlib
import errno
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from jaxgear.errors import UsageError


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """A file that takes the place of `path` at the end: a reader, or a crash, meets the old file or
    the new one. After an exception there is the old one.
    """
    new = path.with_name(f".new-{path.name}")
    try:
        with new.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        new.replace(path)
    except BaseException:
        new.unlink(missing_ok=True)
        raise


def write_bytes(path: Path, content: bytes) -> None:
    """Replaces a file in one move."""
    with replacing(path) as file:
        file.write(content)


def write_text(path: Path, text: str) -> None:
    """`write_bytes` in UTF-8."""
    write_bytes(path, text.encode())


def write_json(path: Path, value: Any) -> None:
    """`write_text` of indented JSON; a value that JSON lacks (NaN) is an error, not a bad file."""
    write_text(path, to_json(value))


def to_json(value: Any) -> str:
    """Indented JSON; ValueError for what JSON lacks (NaN)."""
    return json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


class Output:
    """`replacing` for a file that the user named with a flag: `with Output("--csv", path) as out`.

    Entering it finds out whether the file can be written, before any work.

    Raises:
        UsageError: it cannot be written, now or later.
    """

    def __init__(self, flag: str, path: Path):
        self._flag, self._path = flag, path
        self._replacing = replacing(path)

    def __enter__(self) -> "Output":
        with self._named():
            if self._path.is_dir():
                raise IsADirectoryError(errno.EISDIR, "it is a folder")
            self._file = self._replacing.__enter__()
        return self

    def write(self, content: str | bytes) -> None:
        """Adds bytes, or text in UTF-8."""
        with self._named():
            self._file.write(content.encode() if isinstance(content, str) else content)

    def __exit__(self, *error: Any) -> None:
        with self._named():
            self._replacing.__exit__(*error)

    @contextlib.contextmanager
    def _named(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise UsageError(
                f"{self._flag} {self._path}: cannot be written ({error.strerror})"
            ) from error


def write_output(flag: str, path: Path, content: str | bytes) -> None:
    """Writes a file that the user named with `flag`; `UsageError` if it cannot be written."""
    with Output(flag, path) as output:
        output.write(content)
