"""Reads the files of pictures when they are shown or decided on: hashes, and small JPEGs."""

import functools
import hashlib
import os

from PIL import Image

from jaxgear.data.crops import Box, address, parted, read_bytes
from jaxgear.data.images import ENOUGH, ImageError, decoded
from jaxgear.serving.answer import to_jpeg
from jaxgear.serving.review.pictures import Pictures

THUMBNAIL, LARGE = 192, 1024  # longest sides in pixels
_KEPT = 2048  # thumbnails, of about 10 kB each


class PictureFiles:
    """Files of `Pictures`. Threads may share it."""

    def __init__(self, pictures: Pictures):
        self.pictures = pictures
        self.errors: dict[int, str] = dict(pictures.refused)  # why a picture cannot be shown
        self._found: dict[int, tuple[tuple[int, int], str]] = {}  # file's size and time, sha256
        # A file that is replaced has another size or time, so its thumbnail is made anew.
        self._thumbnail = functools.lru_cache(_KEPT)(lambda index, _: self.jpeg(index, THUMBNAIL))

    def known_sha256(self, index: int) -> str:
        """The hash (hex) of the file as it was last read, else as the run recorded it, else ""."""
        found = self._found.get(index)
        return found[1] if found else self.pictures.sha256[index]

    def sha256(self, index: int) -> str:
        """The hash (hex) of the file as it is now; ImageError if it cannot be read."""
        status = self._status(index)
        found = self._found.get(index)
        if status is None or found is None or found[0] != status:
            self.read(index)
        return self._found[index][1]

    def read(self, index: int) -> bytes:
        """The bytes of a file.

        Raises:
            ImageError: it cannot be read; the reason is kept in `errors`.
        """
        if index in self.pictures.refused:
            raise ImageError(self.pictures.shown(index), self.pictures.refused[index])
        status = self._status(index)
        try:
            data = read_bytes(self.pictures.file(index), self.pictures.shown(index))
        except ImageError as error:
            self.errors[index] = error.reason
            raise
        self._found[index] = (status or (-1, -1)), hashlib.sha256(data).hexdigest()
        return data

    def thumbnail(self, index: int) -> bytes:
        """A JPEG of at most `THUMBNAIL` pixels a side; ImageError as `jpeg`."""
        return self._thumbnail(index, self._status(index))

    def jpeg(self, index: int, longest: int = LARGE) -> bytes:
        """A JPEG of at most `longest` pixels a side.

        Raises:
            ImageError: the file cannot be read or decoded; the reason is kept in `errors`.
        """
        data, name = self.read(index), self.pictures.shown(index)
        try:
            content = _jpeg(data, name, longest)
        except ImageError as error:
            self.errors[index] = error.reason
            raise
        self.errors.pop(index, None)  # it was replaced by a sound file
        return content

    def photograph(self, index: int, box: Box | None = None, longest: int = LARGE) -> bytes:
        """A JPEG of the photograph that a crop is of, or of a box of it, at most `longest` pixels a
        side.

        Raises:
            ImageError: it cannot be read or decoded.
        """
        path, name = parted(self.pictures.file(index))[0], self.pictures.shown(index)
        path = path if box is None else address(path, box)
        return _jpeg(read_bytes(path, name), name, longest)

    def _status(self, index: int) -> tuple[int, int] | None:
        try:
            status = os.stat(parted(self.pictures.file(index))[0])  # noqa: PTH116
        except OSError:
            return None
        return status.st_size, status.st_mtime_ns


def _jpeg(data: bytes, name: str, longest: int) -> bytes:
    with decoded(data, name, least=max(longest, ENOUGH)) as picture:
        image = picture.image
        image.thumbnail((longest, longest), Image.Resampling.BICUBIC)
        return to_jpeg(image)
