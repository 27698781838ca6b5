"""Files that are complete or absent, never half-written."""

import contextlib
import errno
import json
import math
import os
import stat
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


def read_regular(path: Path, limit: int) -> bytes:
    """A file whole; OSError if it is a pipe or folder, or has more than `limit` bytes."""
    # O_NONBLOCK: opening a pipe without a writer would otherwise wait for ever.
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
    with open(descriptor, "rb") as file:  # noqa: PTH123 - a descriptor, not a path
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise OSError(errno.EINVAL, "not a regular file")
        if status.st_size > limit:
            raise OSError(errno.EFBIG, f"larger than {limit >> 20} MB")
        return file.read(limit)


def from_json(content: str | bytes) -> Any:
    """The value of JSON as others read it: no NaN and infinity, no number that becomes one, no key
    twice, nothing too deep. ValueError for all that.
    """

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) < len(pairs):
            raise ValueError("a key twice in one object")
        return found

    def finite(text: str) -> float:
        if not math.isfinite(value := float(text)):
            raise ValueError(f"the number {text[:20]}")
        return value

    try:
        return json.loads(
            content, object_pairs_hook=once, parse_float=finite, parse_constant=finite
        )
    except RecursionError:
        raise ValueError("nested too deeply") from None


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
