"""Files that are complete or absent, never half-written, and a lock for a folder."""

import contextlib
import errno
import json
import math
import os
import shutil
import socket
import stat
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from jaxgear.errors import CheckpointError, UsageError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

PATIENCE = 5  # seconds to wait for a pipe's reader


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """A new file that replaces `path` on leaving; after an exception the old file stays.

    Readers and crashes see the old file or the new one. It follows symbolic links and keeps mode
    and group of the old file. A device or pipe is not replaced: it gets each write at once.
    """
    if (status := _status(path)) is not None and not stat.S_ISREG(status.st_mode):
        with _open_in_place(path, status) as file:
            yield file
        return
    path = Path(os.path.realpath(path))
    if not path.parent.exists():
        raise FileNotFoundError(errno.ENOENT, f"no folder {path.parent}", str(path))
    new = path.with_name(f".new-{path.name}")
    try:
        with new.open("wb") as file:
            if status is not None:
                with contextlib.suppress(OSError, AttributeError):  # not ours to give; Windows
                    os.chown(new, -1, status.st_gid)
                new.chmod(stat.S_IMODE(status.st_mode))
            yield file
            file.flush()
            os.fsync(file.fileno())
        new.replace(path)
    except BaseException:
        new.unlink(missing_ok=True)
        raise


def _status(path: Path) -> os.stat_result | None:
    """The status of a path's target; None if it does not exist."""
    try:
        return path.stat()
    except FileNotFoundError:
        return None


def _open_in_place(path: Path, status: os.stat_result) -> BinaryIO:
    """Opens a device or pipe for writing; OSError for a folder, or a pipe without a reader."""
    if stat.S_ISDIR(status.st_mode):
        raise IsADirectoryError(errno.EISDIR, "it is a folder", str(path))
    give_up = time.monotonic() + PATIENCE
    while True:
        try:
            # Without O_NONBLOCK, opening a pipe without a reader waits for ever.
            descriptor = os.open(path, os.O_WRONLY | getattr(os, "O_NONBLOCK", 0))
            break
        except OSError as error:
            if error.errno != errno.ENXIO or not stat.S_ISFIFO(status.st_mode):
                raise
            if time.monotonic() > give_up:
                raise OSError(errno.ENXIO, "nobody reads this pipe", str(path)) from None
            time.sleep(0.05)
    os.set_blocking(descriptor, True)
    return open(descriptor, "wb")  # noqa: PTH123 - a descriptor, not a path


def write_bytes(path: Path, content: bytes) -> None:
    """Replaces a file atomically."""
    with replacing(path) as file:
        file.write(content)


def write_text(path: Path, text: str) -> None:
    """`write_bytes` in UTF-8."""
    write_bytes(path, text.encode())


def write_json(path: Path, value: Any) -> None:
    """`write_text` of indented JSON; ValueError for a value that JSON lacks (NaN)."""
    write_text(path, to_json(value))


def read_json(path: Path) -> Any:
    """The value of a JSON file of a run folder.

    Raises:
        CheckpointError: it is missing or unreadable, so this is not a run folder.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path.parent}: not a run folder ({path.name}: {error})") from error


def to_json(value: Any) -> str:
    """Indented JSON; ValueError for a value that JSON lacks (NaN)."""
    return json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def second_name(path: Path, name: Path) -> None:
    """Gives a file that never changes a second name, or copies it to another file system."""
    try:
        name.hardlink_to(path)
    except OSError:  # or it has no hard links
        shutil.copyfile(path, name)


def read_regular(path: str | os.PathLike[str], limit: int) -> bytes:
    """The content of a file; OSError if it is a pipe or folder, or has more than `limit` bytes."""
    # Without O_NONBLOCK, opening a pipe without a writer waits for ever.
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
    with open(descriptor, "rb") as file:  # noqa: PTH123 - a descriptor, not a path
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise OSError(errno.EINVAL, "not a regular file")
        if status.st_size > limit:
            size = f"{-(-status.st_size // 2**20)} MB"
            raise OSError(errno.EFBIG, f"{size} is over the limit of {limit >> 20} MB")
        # Not `limit`: `read` would allocate that many bytes each time.
        return file.read(status.st_size + 1)


def from_json(content: str | bytes) -> Any:
    """The value of strict JSON.

    Raises:
        ValueError: it has NaN, an infinity, a number that becomes one, a duplicate key, or too deep
            nesting.
    """

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        items = dict(pairs)
        if len(items) < len(pairs):
            raise ValueError("a key twice in one object")
        return items

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


class Lock:
    """Locks the file `path`, and so its folder, until `release` or the end of the process.

    The kernel's lock (flock) counts; pid and host inside the file are for people. So a dead process
    leaves nothing to clean up: the next process takes its file over with a note. Without flock
    (Windows) it locks nothing.

    Raises:
        UsageError: another process holds the lock.
    """

    def __init__(self, path: Path):
        self._path = path
        self._file: int | None = None
        if fcntl is not None:
            self._file = self._locked(path)

    @staticmethod
    def _locked(path: Path) -> int:
        """Opens and locks the file, and writes this process's pid and host into it."""
        while True:
            file = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                holder = _holder(file)
                os.close(file)
                raise UsageError(
                    f"{path.parent}: in use by process {holder.get('pid', 'unknown')} on "
                    f"{holder.get('host', 'an unknown host')}; wait for it or stop it"
                ) from error
            # If the last holder has removed the file meanwhile, this lock protects nothing.
            with contextlib.suppress(FileNotFoundError):
                if os.path.samestat(os.stat(path), os.fstat(file)):  # noqa: PTH116
                    break
            os.close(file)
        if holder := _holder(file):
            print(
                f"note: {path.parent}: process {holder.get('pid')} on {holder.get('host')} ended "
                "without releasing its lock; this process takes it over",
                file=sys.stderr,
            )
        os.ftruncate(file, 0)
        text = json.dumps({"pid": os.getpid(), "host": socket.gethostname()})
        os.pwrite(file, text.encode(), 0)
        return file

    @property
    def descriptor(self) -> int | None:
        """The open file; a process that inherits it holds the lock too. None without flock."""
        return self._file

    def __enter__(self) -> "Lock":
        return self

    def __exit__(self, *error: object) -> None:
        self.release()

    def release(self) -> None:
        """Removes the file and releases the lock."""
        if self._file is not None:
            self._path.unlink(missing_ok=True)
            os.close(self._file)


def _holder(file: int) -> dict[str, Any]:
    with contextlib.suppress(ValueError):
        holder = json.loads(os.pread(file, 4096, 0))
        if isinstance(holder, dict):
            return holder
    return {}
