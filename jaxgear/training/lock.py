"""One run, one writer: a file in the run folder that its process holds locked."""

import contextlib
import fcntl
import json
import os
import socket
import sys
from pathlib import Path
from typing import Any

from jaxgear.errors import UsageError


class Lock:
    """Holds `path` locked until `release`, or the end of the process, however it ends.

    The kernel's lock (flock) is what counts; the pid and host inside are for people. So a process
    that died leaves nothing to clean: its file is taken over with a note.

    Raises:
        UsageError: another process holds it.
    """

    def __init__(self, path: Path):
        self._path = path
        while True:
            self._file = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
            try:
                fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                holder = _holder(self._file)
                os.close(self._file)
                raise UsageError(
                    f"{path.parent}: in use by process {holder.get('pid', 'unknown')} on "
                    f"{holder.get('host', 'an unknown host')}; wait for it or stop it"
                ) from error
            # Whoever held it may have removed the file in between: then this lock is of nothing.
            with contextlib.suppress(FileNotFoundError):
                if os.path.samestat(os.stat(path), os.fstat(self._file)):  # noqa: PTH116
                    break
            os.close(self._file)
        if holder := _holder(self._file):
            print(
                f"note: {path.parent}: process {holder.get('pid')} on {holder.get('host')} ended "
                "without leaving; its lock is taken over",
                file=sys.stderr,
            )
        os.ftruncate(self._file, 0)
        text = json.dumps({"pid": os.getpid(), "host": socket.gethostname()})
        os.pwrite(self._file, text.encode(), 0)

    def release(self) -> None:
        """Removes the file and lets go of it."""
        self._path.unlink(missing_ok=True)
        os.close(self._file)


def _holder(file: int) -> dict[str, Any]:
    with contextlib.suppress(ValueError):
        found = json.loads(os.pread(file, 4096, 0))
        if isinstance(found, dict):
            return found
    return {}
