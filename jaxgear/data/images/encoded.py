"""A picture's file before it is decoded: bytes that are read once, and refused in plain words."""

import errno
import os
import stat
from pathlib import Path

from jaxgear.data.images import jpeg
from jaxgear.data.images.png import END
from jaxgear.errors import DataError, GearError

MAX_BYTES = 512 * 2**20
MAX_EXIF = 64  # segments of a JPEG, which Pillow joins in quadratic time; cameras write one or two

# What no file is to blame for: too many are open, or memory is short.
_OF_THE_MACHINE = (errno.EMFILE, errno.ENFILE, errno.ENOMEM)


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


def check_whole(data: bytes, name: str) -> jpeg.Scans | None:
    """`ImageError` for files that are not whole where Pillow would fill the gap or not look.

    Returns:
        of a JPEG, where its compressed data are.
    """
    if not data:
        raise ImageError(name, "empty file")
    if data.startswith(jpeg.START):
        found = jpeg.scans(data)
        if found is None:
            raise ImageError(name, "truncated JPEG (no end-of-image marker)")
        if data.count(b"Exif\0\0") > MAX_EXIF:
            raise ImageError(name, "damaged picture (too many EXIF segments)")
        return found
    if data.startswith(b"\x89PNG\r\n") and END not in data:
        raise ImageError(name, "truncated PNG (no IEND chunk)")
    # A WebP has no check sums; where it is longer than it says, something was put in.
    longer = data.startswith(b"RIFF") and len(data) > 8 + int.from_bytes(data[4:8], "little")
    if longer and 0 < data.count(b"\n") == data.count(b"\r\n"):
        raise ImageError(name, "damaged WebP (it was copied as text)")
    return None
