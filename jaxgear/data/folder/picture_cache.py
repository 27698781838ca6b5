"""Keeps decoded images between runs: one small file each, keyed by the hash of the image file.

The cache only saves time and may be deleted at any time. An entry that is missing, truncated,
altered, or from other code or another Pillow is decoded again. A cache that is not writable is not
used.
"""

import hashlib
import itertools
import os
import struct
from collections.abc import Collection
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import PIL
from jaxtyping import UInt8

from jaxgear.cache import Entries
from jaxgear.data.images import (
    ENOUGH,
    decode,
    decoded,
    describe_image,
    descriptor,
    letterbox_image,
    load_letterboxed,
)

_HEADER = struct.Struct("<8s32sIII")  # magic, sha256 of the file, height, width, len(descriptor)
_MAGIC, _MASK_MAGIC = b"jaxgear1", b"jaxgearm"


@dataclass(frozen=True)
class Decoded:
    """The cache entry of one image: its full size, its descriptor and its letterboxed pixels."""

    height: int
    width: int
    descriptor: bytes
    pixels: UInt8[np.ndarray, "S S 3"]


def shrink(data: bytes, name: str, size: int) -> Decoded:
    """The cache entry of a file; `ImageError` if it is not a whole image."""
    with decoded(data, name, least=ENOUGH) as picture:
        height, width, descriptor = picture.height, picture.width, describe_image(picture.image)
        pixels = letterbox_image(picture.image, size) if picture.serves(size) else None
    if pixels is None:
        pixels = load_letterboxed(data, size, name)
    return Decoded(height, width, descriptor, pixels)


class PictureCache:
    """Cache entries of images letterboxed at one size."""

    def __init__(self, size: int, *, outside: Path | None = None):
        """`outside`: a data folder in which nothing is written."""
        # The path holds every version that the pixels depend on, so no entry can be outdated.
        version = f"v{decode.VERSION}.{descriptor.VERSION}-pillow{PIL.__version__}-{size}px"
        self._entries = Entries(f"pictures/{version}", outside)
        self._size = size

    def decode(self, data: bytes, name: str) -> tuple[str, Decoded]:
        """The sha256 (hex) of an image file, and its entry: from the cache, or decoded and stored.

        Raises:
            ImageError: not a whole image (nothing is stored).
        """
        sha256 = hashlib.sha256(data).hexdigest()
        entry = self.get(sha256)
        if entry is None:
            entry = shrink(data, name, self._size)
            self.put(sha256, entry)
        return sha256, entry

    def get(self, sha256: str) -> Decoded | None:
        """The entry of the image with this hash (hex), or None."""
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
        """Stores an entry, if the cache is writable."""
        key = bytes.fromhex(sha256)
        head = _HEADER.pack(_MAGIC, key, entry.height, entry.width, len(entry.descriptor))
        self._entries.write(sha256, head + entry.descriptor + entry.pixels.tobytes())


def kept_descriptors(sha256: Collection[str], size: int) -> list[bytes] | None:
    """Descriptors of the images with these hashes (hex), if the user's cache has all of them."""
    store = PictureCache(size)

    def read(key: str) -> bytes | None:
        entry = store.get(key)
        return None if entry is None else entry.descriptor

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        kept = list(itertools.takewhile(bool, pool.map(read, sha256)))
        pool.shutdown(cancel_futures=True)
    return kept if len(kept) == len(sha256) else None


class MaskCache:
    """Masks of cut-outs (data/composites/masks.py), letterboxed at one size, by image hash."""

    def __init__(self, size: int, version: int, outside: Path | None = None):
        """`version` of the rule that makes masks; `outside` as for `PictureCache`."""
        place = f"v{decode.VERSION}.{version}-pillow{PIL.__version__}-{size}px"
        self._entries = Entries(f"masks/{place}", outside)
        self._size = size

    def get(self, sha256: str) -> UInt8[np.ndarray, "S S"] | None:
        """The mask of the image with this hash (hex), or None."""
        body = self._entries.read(sha256)
        head = _MASK_MAGIC + bytes.fromhex(sha256)
        if body is None or len(body) != len(head) + self._size**2 or not body.startswith(head):
            return None
        return np.frombuffer(body, np.uint8, offset=len(head)).reshape(self._size, self._size)

    def put(self, sha256: str, mask: UInt8[np.ndarray, "S S"]) -> None:
        """Stores a mask, if the cache is writable."""
        self._entries.write(sha256, _MASK_MAGIC + bytes.fromhex(sha256) + mask.tobytes())
