"""CSV files to which rows are added, one decision at a time."""

import codecs
import contextlib
import csv
import errno
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from jaxgear.text import to_csv

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

_LONGEST = 2**16  # bytes of a row


def append_rows(
    path: Path, header: Sequence[str], rows: Iterable[Sequence[Any]], at: int | None = None
) -> os.stat_result | None:
    """Adds rows to a CSV file, which is made if need be; returns once they are on disk.

    Several processes may append to one file. A last row that a killed process left unfinished is
    dropped first.

    Args:
        at: the size in bytes of the file as the caller knows it (0: no file). If it has another
            size by now, somebody else wrote to it, and nothing is added.

    Returns:
        The status of the file with these rows; None if nothing was added.

    Raises:
        OSError: the file cannot be written, or has another header.
    """
    first, content = ",".join(header).encode(), to_csv(rows).encode()
    with path.open("a+b") as file:
        if fcntl is not None:
            fcntl.flock(file, fcntl.LOCK_EX)  # until the file is closed
        size = file.seek(0, os.SEEK_END)
        if at is not None and at != size:
            return None
        file.seek(0)
        line = file.readline(_LONGEST).removeprefix(codecs.BOM_UTF8).rstrip(b"\r\n")
        file.seek(max(0, size - _LONGEST))
        tail = file.read()
        if not size:
            file.write(first + b"\n")
        elif line != first:
            raise OSError(errno.EINVAL, f"not a table of {','.join(header)}: nothing is added")
        elif torn := len(tail) - len(whole_rows(tail, len(header))):
            file.truncate(size - torn)
        elif not tail.endswith(b"\n"):
            file.write(b"\n")
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
        return os.fstat(file.fileno())


def whole_rows(data: bytes, columns: int) -> bytes:
    """CSV without a last row that a killed process left unfinished."""
    last = data.rpartition(b"\n")[2]
    with contextlib.suppress(csv.Error, StopIteration):
        if last and len(next(csv.reader([last.decode(errors="replace")]))) >= columns:
            return data
    return data[: len(data) - len(last)]
