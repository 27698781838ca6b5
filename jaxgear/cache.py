"""The user's cache folder, and entries that are kept in it: one small file each, by hash.

A cache only saves time. An entry that is missing, cut short or altered is not there; a cache that
cannot be written is not used. It may be deleted at any time.
"""

import os
import threading
import zlib
from pathlib import Path
from typing import Literal

from jaxgear.paths import expanded

CacheChoice = Path | Literal["user"] | None  # a folder, `user_cache()`, or none


def user_cache() -> Path | None:
    """`$JAXGEAR_CACHE`, `$XDG_CACHE_HOME/jaxgear` or `~/.cache/jaxgear`; None without a home."""
    if chosen := os.environ.get("JAXGEAR_CACHE"):
        return Path(expanded(chosen))
    base = Path(os.environ.get("XDG_CACHE_HOME", ""))
    if base.is_absolute():  # the XDG specification asks to ignore relative ones
        return base / "jaxgear"
    try:
        return Path.home() / ".cache" / "jaxgear"
    except RuntimeError:
        return None


class Entries:
    """One checked file an entry, named by a hash (hex). Safe for many threads and processes."""

    def __init__(self, choice: CacheChoice, place: str, outside: Path | None):
        """`outside`: a data folder; a cache inside it is not used, as nothing is written there."""
        base = user_cache() if choice == "user" else choice
        if base is not None and outside is not None:
            inside = base.resolve().is_relative_to(outside.resolve())
            base = None if inside else base
        self._folder = None if base is None else base / place
        self._writable = True

    def read(self, sha256: str) -> bytes | None:
        """What was written for this hash (hex), or None."""
        if self._folder is None:
            return None
        try:
            data = self._path(sha256).read_bytes()
        except OSError:
            return None
        body, check = data[:-4], data[-4:]
        return body if zlib.crc32(body).to_bytes(4, "little") == check else None

    def write(self, sha256: str, body: bytes) -> None:
        """Stores an entry whole or not at all; after the first failure it stops trying."""
        if self._folder is None or not self._writable:
            return
        path = self._path(sha256)
        unfinished = path.with_name(f".{sha256}-{os.getpid()}-{threading.get_ident()}")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            try:
                unfinished.write_bytes(body + zlib.crc32(body).to_bytes(4, "little"))
                unfinished.replace(path)
            except BaseException:
                unfinished.unlink(missing_ok=True)
                raise
        except OSError:  # read-only home, full disk: slower next time, and no reason to stop
            self._writable = False

    def _path(self, sha256: str) -> Path:
        assert self._folder is not None
        return self._folder / sha256[:2] / sha256
