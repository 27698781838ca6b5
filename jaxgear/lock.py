"""One folder, one writer: a file in it that its process holds locked."""

import contextlib
import json
import os
import socket
import sys
from pathlib import Path
from typing import Any

from jaxgear.errors import UsageError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None


class Lock:
    """Holds `path` locked until `release`, or the end of the process, however it ends.

    The kernel's lock (flock) is what counts; the pid and host inside are for people. So a process
    that died leaves nothing to clean: its file is taken over with a note. Where there is no flock
    (Windows) nothing is locked.

    Raises:
        UsageError: another process holds it.
    """

    def __init__(self, path: Path):
        self._path = path
        self._file: int | None = None
        if fcntl is not None:
            self._file = self._locked(path)

    @staticmethod
    def _locked(path: Path) -> int:
        """The open file, locked, with this process's name in it."""
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
            # Whoever held it may have removed the file in between: then this lock is of nothing.
            with contextlib.suppress(FileNotFoundError):
                if os.path.samestat(os.stat(path), os.fstat(file)):  # noqa: PTH116
                    break
            os.close(file)
        if holder := _holder(file):
            print(
                f"note: {path.parent}: process {holder.get('pid')} on {holder.get('host')} ended "
                "without leaving; its lock is taken over",
                file=sys.stderr,
            )
        os.ftruncate(file, 0)
        text = json.dumps({"pid": os.getpid(), "host": socket.gethostname()})
        os.pwrite(file, text.encode(), 0)
        return file

    def __enter__(self) -> "Lock":
        return self

    def __exit__(self, *error: object) -> None:
        self.release()

    def release(self) -> None:
        """Removes the file and lets go of it."""
        if self._file is not None:
            self._path.unlink(missing_ok=True)
            os.close(self._file)


def _holder(file: int) -> dict[str, Any]:
    with contextlib.suppress(ValueError):
        found = json.loads(os.pread(file, 4096, 0))
        if isinstance(found, dict):
            return found
    return {}
