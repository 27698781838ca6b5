"""Unpacks a zip or tar of pictures into the user's cache, once."""

import hashlib
import os
import shutil
import tarfile
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import IO

from jaxgear.cache import user_cache
from jaxgear.data.folder.names import left_by_system, split_of
from jaxgear.errors import DataError, first_line
from jaxgear.text import printable

SUFFIXES = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")
_SPARE = 2**29  # bytes that unpacking leaves free on the disk
Entry = tuple[str, int, Callable[[], IO[bytes] | None]]  # name, size, and how to open it


def is_archive(path: str) -> bool:
    """Whether a file has the name of an archive."""
    return path.lower().endswith(SUFFIXES)


def unpacked(archive: Path) -> Path:
    """The folder of an archive's files. It stays in the cache as long as the archive is the same.

    Only regular files are unpacked: no links, and none outside the folder. If everything lies in
    one folder that is no split, that folder is returned.

    Raises:
        DataError: not an archive, damaged, encrypted, a name that leads out of it, or too little
            disk.
    """
    status = _status(archive)
    key = f"{archive.resolve()} {status.st_size} {status.st_mtime_ns}".encode()
    base = user_cache() or Path(tempfile.mkdtemp(prefix="jaxgear-"))
    place = base / "archives" / hashlib.sha256(key).hexdigest()[:16]
    if not place.is_dir():
        try:
            place.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(prefix=".new-", dir=place.parent) as new:
                _unpack(archive, Path(new) / "files")
                _publish(Path(new) / "files", place)
        except (MemoryError, DataError):
            raise
        except OSError as error:
            raise DataError(f"{archive}: cannot be unpacked ({error.strerror or error})") from None
        except Exception as error:  # zlib, lzma, struct: a damaged archive can raise anything
            raise DataError(f"{archive}: damaged archive ({first_line(error)})") from error
    return _inner(place)


def _status(archive: Path) -> os.stat_result:
    try:
        return archive.stat()
    except OSError as error:
        raise DataError(f"{archive}: cannot be read ({error.strerror})") from None


def _publish(new: Path, place: Path) -> None:
    try:
        new.rename(place)
    except OSError:
        if not place.is_dir():  # another process may have unpacked the same archive meanwhile
            raise


def _unpack(archive: Path, out: Path) -> None:
    out.mkdir()
    left = shutil.disk_usage(out).free - _SPARE
    for name, size, opened in _entries(archive):
        parts = PurePosixPath(name.replace("\\", "/")).parts
        if not parts or ".." in parts or name.startswith("/") or "\0" in name or ":" in parts[0]:
            raise DataError(f"{archive}: {printable(name)[:200]!r} leads out of the archive")
        left -= size
        if left < 0:
            raise DataError(f"{archive}: too little disk in {out.parent.parent} to unpack it")
        path = out.joinpath(*parts)
        path.parent.mkdir(parents=True, exist_ok=True)
        source = opened()
        if source is None:
            continue
        with source, path.open("wb") as file:
            shutil.copyfileobj(source, file, 2**20)
            if file.tell() != size:
                raise DataError(f"{archive}: {printable(name)} has not the size that it claims")


def _entries(archive: Path) -> Iterator[Entry]:
    """The regular files of an archive."""
    if archive.name.lower().endswith(".zip"):
        try:
            file = zipfile.ZipFile(archive, metadata_encoding="utf-8")  # macOS sets no flag for it
        except UnicodeDecodeError:
            file = zipfile.ZipFile(archive)
        with file:
            for info in file.infolist():
                if info.flag_bits & 1:
                    raise DataError(f"{archive}: is encrypted; unpack it yourself")
                mode = info.external_attr >> 16
                if not info.is_dir() and (mode & 0o170000) in (0, 0o100000):
                    yield info.filename, info.file_size, lambda info=info: file.open(info)
        return
    with tarfile.open(archive) as file:
        for member in file:
            if member.isreg():
                yield member.name, member.size, lambda member=member: file.extractfile(member)


def _inner(folder: Path) -> Path:
    """The folder, or the only one in it, if that is no split; and so on."""
    while True:
        names = [e for e in folder.iterdir() if not left_by_system(e.name, e.is_dir())]
        if len(names) != 1 or not names[0].is_dir() or split_of(names[0].name) is not None:
            return folder
        folder = names[0]
