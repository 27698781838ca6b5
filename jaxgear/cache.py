"""The user's cache folder, and its entries: one small file each, named by a hash.

A cache only saves time, and may be deleted at any time. A damaged entry counts as missing. A cache
that cannot be written is not used.
"""

import os
import threading
import zlib
from pathlib import Path

from jaxgear.paths import expanded


def user_cache() -> Path | None:
    """`$JAXGEAR_CACHE`, `$XDG_CACHE_HOME/jaxgear` or `~/.cache/jaxgear`; None without a home."""
    if chosen := os.environ.get("JAXGEAR_CACHE"):
        return Path(expanded(chosen))
    base = Path(os.environ.get("XDG_CACHE_HOME", ""))
    if base.is_absolute():  # the XDG specification says to ignore a relative path
        return base / "jaxgear"
    try:
        return Path.home() / ".cache" / "jaxgear"
    except RuntimeError:
        return None


class Entries:
    """Entries with checksums, by key: a hash (hex). Safe for many threads and processes."""

    def __init__(self, place: str, outside: Path | None = None):
        """Those in the folder `place` of the user's cache.

        A cache inside the data folder `outside` is not used: nothing may be written there.
        """
        base = user_cache()
        if base is not None and outside is not None:
            inside = base.resolve().is_relative_to(outside.resolve())
            base = None if inside else base
        self._folder = None if base is None else base / place
        self._writable = True

    def read(self, key: str) -> bytes | None:
        """The entry of this key, or None."""
        if self._folder is None:
            return None
        try:
            data = self._path(key).read_bytes()
        except OSError:
            return None
        body, check = data[:-4], data[-4:]
        return body if zlib.crc32(body).to_bytes(4, "little") == check else None

    def write(self, key: str, body: bytes) -> None:
        """Stores an entry, complete or not at all; after the first failure it stops trying."""
        if self._folder is None or not self._writable:
            return
        path = self._path(key)
        unfinished = path.with_name(f".{key}-{os.getpid()}-{threading.get_ident()}")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            try:
                unfinished.write_bytes(body + zlib.crc32(body).to_bytes(4, "little"))
                unfinished.replace(path)
            except BaseException:
                unfinished.unlink(missing_ok=True)
                raise
        except OSError:  # a read-only home or full disk only makes the next run slower
            self._writable = False

    def _path(self, key: str) -> Path:
        assert self._folder is not None
        return self._folder / key[:2] / key
