"""A picture's file before it is decoded: bytes that are read once, and refused in plain words."""

import codecs
import errno
import os
import re
import stat
from collections.abc import Sequence
from pathlib import Path

from jaxgear.data.png import END
from jaxgear.errors import DataError, GearError

MAX_BYTES = 512 * 2**20
MAX_EXIF = 64  # segments of a JPEG, which Pillow joins in quadratic time; cameras write one or two

# What no file is to blame for: too many are open, or memory is short.
_OF_THE_MACHINE = (errno.EMFILE, errno.ENFILE, errno.ENOMEM)

_JPEG_MARKER = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]")


class ImageError(DataError):
    """A file that is not a whole, readable picture. The message is `<name>: <reason>`."""

    def __init__(self, name: str, reason: str):
        super().__init__(f"{name}: {reason}")
        self.reason = reason


def read_bytes(path: str | os.PathLike[str], name: str) -> bytes:
    """Reads a regular file whole; `ImageError` for anything else. Never blocks on a pipe."""
    try:
        # O_NONBLOCK: opening a named pipe without a writer would otherwise wait for ever. The type
        # is then asked of what was opened, so nothing can be swapped in between.
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
        with open(descriptor, "rb") as file:  # noqa: PTH123 - a descriptor, not a path
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                raise ImageError(name, "not a regular file")
            if status.st_size > MAX_BYTES:
                size = f"{-(-status.st_size // 2**20)} MB"
                raise ImageError(name, f"{size} is over the limit of {MAX_BYTES >> 20} MB")
            # A limit of MAX_BYTES would be allocated each time.
            return file.read(status.st_size + 1)
    except IsADirectoryError:
        raise ImageError(name, "a folder, not a picture") from None
    except FileNotFoundError:
        broken = Path(path).is_symlink()
        raise ImageError(name, "broken symbolic link" if broken else "no such file") from None
    except OSError as error:
        if error.errno in _OF_THE_MACHINE:
            raise GearError(f"{name}: cannot be opened ({error.strerror}), as any other") from error
        raise ImageError(name, f"cannot be read: {error.strerror}") from None


def what_it_is(data: bytes, formats: Sequence[str]) -> str:
    """Names what a file of none of `formats` holds: the usual cause is a failed download."""
    start = data[:4096].lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if start.startswith((b"<!doctype html", b"<html")):
        return "a web page, not a picture"
    try:
        text = codecs.getincrementaldecoder("utf-8")().decode(start)  # the cut may split a letter
    except UnicodeDecodeError:
        text = "\0"
    if not re.search(r"[\x00-\x08\x0e-\x1f\x7f]", text):
        return "text, not a picture"
    return f"not a readable picture ({', '.join(formats)})"


def check_whole(data: bytes, name: str) -> None:
    """`ImageError` for files whose end is missing where Pillow would fill the gap or not look."""
    if not data:
        raise ImageError(name, "empty file")
    if data.startswith(b"\xff\xd8\xff") and not _jpeg_ends(data):
        raise ImageError(name, "truncated JPEG (no end-of-image marker)")
    if data.startswith(b"\xff\xd8\xff") and data.count(b"Exif\0\0") > MAX_EXIF:
        raise ImageError(name, "damaged picture (too many EXIF segments)")
    if data.startswith(b"\x89PNG\r\n") and END not in data:
        raise ImageError(name, "truncated PNG (no IEND chunk)")


def _jpeg_ends(data: bytes) -> bool:
    """Whether the first picture in a JPEG file has its end-of-image marker (ISO 10918-1, annex B).

    Walks from marker to marker and skips segments by their length, so that the end marker of an
    embedded thumbnail does not count; bytes after the end marker (phones append previews and video)
    do not matter.
    """
    position = 2
    while found := _JPEG_MARKER.search(data, position):
        marker = data[found.start() + 1]
        position = found.end()
        if marker == 0xD9:
            return True
        if marker not in (0x01, 0xD8):  # all others but these two are followed by a length
            position += int.from_bytes(data[position : position + 2], "big")
    return False
