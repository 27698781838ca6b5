"""Limits on the time and memory of a fuzz case, and the state of folders that must not change."""

import faulthandler
import gc
import hashlib
import os
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

SECONDS = 10  # of the processor; a case takes some milliseconds
MEBIBYTES = 1024
_STATUS, _CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


@contextmanager
def limited(mebibytes: int = MEBIBYTES, seconds: float = SECONDS) -> Iterator[None]:
    """Fails if a case takes more than `seconds`, or `mebibytes` of further memory (on Linux, by
    /proc). Ends a hang with a traceback of all threads.
    """
    faulthandler.dump_traceback_later(60, exit=True)
    started, before = time.process_time(), _peak(reset=True)
    try:
        yield
    finally:
        faulthandler.cancel_dump_traceback_later()
    took = time.process_time() - started
    assert took < seconds, f"{took:.0f} s"
    grown = (_peak() - before) / 1024 if before else 0
    assert grown < mebibytes, f"{grown:.0f} MiB"


def _peak(reset: bool = False) -> int:
    """The largest resident size since the last reset, in KiB."""
    try:
        if reset:
            _CLEAR.write_text("5")
    except OSError:  # no writable /proc: limits only time
        return 0
    line = next(line for line in _STATUS.read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1])


@contextmanager
def no_warnings() -> Iterator[None]:
    """Fails on any warning, even if the code inside catches warnings raised as errors."""
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        yield
        gc.collect()
    messages = [str(warning) for warning in seen]
    assert not messages, messages[:3]


def state(root: Path) -> dict[bytes, tuple]:
    """Every entry below `root`, without following links: its time, mode and content."""
    entries = {}
    for folder, folders, files in os.walk(os.fsencode(root)):
        for name in (*folders, *files):
            path = os.path.join(folder, name)  # noqa: PTH118 - bytes
            status = os.lstat(path)
            content = None
            if os.path.islink(path):  # noqa: PTH114
                content = os.readlink(path)  # noqa: PTH115
            elif name in files:
                with open(path, "rb") as file:  # noqa: PTH123
                    content = hashlib.sha256(file.read()).digest()
            entries[path] = status.st_mtime_ns, status.st_mode, content
    return entries
