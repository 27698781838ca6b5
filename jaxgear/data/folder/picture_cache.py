"""Decoded pictures kept between runs, one small file each, keyed by the hash of their bytes.

A cache only saves time. An entry that is missing, cut short, altered or from other code or another
Pillow is decoded again; a cache that cannot be written is not used. It may be deleted at any time.
"""

import hashlib
import os
import struct
import threading
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import PIL
from jaxtyping import UInt8

from jaxgear.data.images import decode as images
from jaxgear.data.splits import near_duplicates as looks
from jaxgear.paths import expanded

CacheChoice = Path | Literal["user"] | None  # a folder, `user_cache()`, or none

_HEADER = struct.Struct("<8s32sIII")  # magic, sha256 of the file, height, width, len(look)
_MAGIC, _MASK_MAGIC = b"jaxgear1", b"jaxgearm"


@dataclass(frozen=True)
class Decoded:
    """What is kept of one picture: its size when decoded, its descriptor and its small pixels."""

    height: int
    width: int
    look: bytes
    pixels: UInt8[np.ndarray, "S S 3"]


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


def shrink(data: bytes, name: str, size: int) -> Decoded:
    """A file -> what is kept of it; `ImageError` where it is no whole picture."""
    with images.decoded(data, name, least=images.ENOUGH) as picture:
        height, width, look = picture.height, picture.width, looks.describe_image(picture.image)
        pixels = images.letterbox_image(picture.image, size) if picture.serves(size) else None
    if pixels is None:
        pixels = images.load_letterboxed(data, size, name)
    return Decoded(height, width, look, pixels)


class _Entries:
    """One checked file an entry, named by sha256. Safe for many threads and processes at once."""

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


class PictureCache:
    """Entries for pictures letterboxed at one size."""

    def __init__(self, choice: CacheChoice, size: int, *, outside: Path | None = None):
        """`outside`: a data folder in which nothing is written."""
        # The versions that the pixels depend on are part of the place, so that no entry can be old.
        version = f"v{images.VERSION}.{looks.VERSION}-pillow{PIL.__version__}-{size}px"
        self._entries = _Entries(choice, f"pictures/{version}", outside)
        self._size = size

    def decode(self, data: bytes, name: str) -> tuple[str, Decoded]:
        """The sha256 (hex) of a picture's bytes, and its entry: kept, or decoded and kept now.

        Raises:
            ImageError: the bytes are no whole picture (which is not kept).
        """
        sha256 = hashlib.sha256(data).hexdigest()
        entry = self.get(sha256)
        if entry is None:
            entry = shrink(data, name, self._size)
            self.put(sha256, entry)
        return sha256, entry

    def get(self, sha256: str) -> Decoded | None:
        """The entry for a picture with this hash (hex), or None."""
        body = self._entries.read(sha256)
        count = 3 * self._size**2
        if body is None or len(body) < _HEADER.size + count:
            return None
        magic, key, height, width, length = _HEADER.unpack_from(body)
        end = _HEADER.size + length
        if (magic, key, len(body)) != (_MAGIC, bytes.fromhex(sha256), end + count):
            return None
        pixels = np.frombuffer(body, np.uint8, count, end).reshape(self._size, self._size, 3)
        return Decoded(height, width, body[_HEADER.size : end], pixels)

    def put(self, sha256: str, entry: Decoded) -> None:
        """Keeps an entry, where that is possible."""
        key = bytes.fromhex(sha256)
        head = _HEADER.pack(_MAGIC, key, entry.height, entry.width, len(entry.look))
        self._entries.write(sha256, head + entry.look + entry.pixels.tobytes())


class MaskCache:
    """Masks of cut-outs (data/composites/cutout.py) letterboxed at one size, by the hash of the picture."""

    def __init__(self, choice: CacheChoice, size: int, version: int, outside: Path | None = None):
        """`version` of the rule by which masks are made; `outside` as of `PictureCache`."""
        place = f"v{images.VERSION}.{version}-pillow{PIL.__version__}-{size}px"
        self._entries = _Entries(choice, f"masks/{place}", outside)
        self._size = size

    def get(self, sha256: str) -> UInt8[np.ndarray, "S S"] | None:
        """The mask of the picture with this hash (hex), or None."""
        body = self._entries.read(sha256)
        head = _MASK_MAGIC + bytes.fromhex(sha256)
        if body is None or len(body) != len(head) + self._size**2 or not body.startswith(head):
            return None
        return np.frombuffer(body, np.uint8, offset=len(head)).reshape(self._size, self._size)

    def put(self, sha256: str, mask: UInt8[np.ndarray, "S S"]) -> None:
        """Keeps a mask, where that is possible."""
        self._entries.write(sha256, _MASK_MAGIC + bytes.fromhex(sha256) + mask.tobytes())
