"""Writes the shards of a prepared set and their sums.

Beside a shard are its table (`<shard>.npz`), which has the sizes of the other two files, and the
descriptors of its records (`<shard>.descriptors`). The columns of all records are in files of their
own (columns.py), so opening a set reads no image. `SHA256SUMS` has the sum of every file, in the
format of `sha256sum --check`. A written file never changes.
"""

import contextlib
import hashlib
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from jaxgear.data.folder import Record, descriptors_of
from jaxgear.errors import DataError, first_line

NAME = "gear"  # name of the TFDS set
FEATURES = {"image", "label", "path", "sha256", "group"}  # of its records
SUMS = "SHA256SUMS"
INDEX = "index.npz"
COLUMNS = "columns"
UNFINISHED = ".new-"  # prefix of the folder of a version during writing

# Groups of one record, for random access. JPEG and PNG are compressed already.
_OPTIONS = "group_size:1,uncompressed"


@dataclass(frozen=True)
class Shard:
    """One array_record file."""

    path: Path
    split: str  # also the split of its records
    records: Sequence[Record]
    stored: Sequence[str]  # sha256 (hex) of each image's stored bytes
    sums: tuple[str, ...]  # sha256 (hex) of each of `files`

    @property
    def files(self) -> tuple[Path, ...]:
        """The shard, its table and its descriptors, which an older set has in the table."""
        return (self.path, table_of(self.path), descriptor_file(self.path))[: len(self.sums) or 3]


def shard_name(split: str, index: int, count: int) -> str:
    """The file name that TFDS expects."""
    return f"{NAME}-{split}.array_record-{index:05d}-of-{count:05d}"


def table_of(shard: Path) -> Path:
    """The path of a shard's table."""
    return shard.with_name(shard.name + ".npz")


def descriptor_file(shard: Path) -> Path:
    """The path of the descriptors of a shard's records: u8 [rows, bytes of one]."""
    return shard.with_name(shard.name + ".descriptors")


def write_shard(shard: Shard, rows: Iterable[bytes]) -> tuple[str, ...]:
    """Writes a shard and its table, and waits until they are on the disk.

    Args:
        shard: complete except for its sums.
        rows: the serialised records with their images.

    Returns:
        The sums of its files.

    Raises:
        DataError: the disk is full.
    """
    from array_record.python.array_record_module import ArrayRecordWriter

    try:
        with contextlib.closing(ArrayRecordWriter(os.fspath(shard.path), _OPTIONS)) as writer:
            for row in rows:
                writer.write(row)
    except RuntimeError as error:  # from array_record, for example on a full disk
        raise DataError(f"{shard.path}: cannot be written: {first_line(error)}") from error
    return write_table(shard)


def write_table(shard: Shard) -> tuple[str, ...]:
    """The part of `write_shard` after the shard itself."""
    path = shard.path
    with descriptor_file(path).open("wb") as file:
        file.writelines(descriptors_of(shard.records))
    sizes = [file.stat().st_size for file in (path, descriptor_file(path))]
    with table_of(path).open("wb") as file:
        np.savez(file, bytes=np.array(sizes))
    return tuple(map(_sum_and_sync, (path, table_of(path), descriptor_file(path))))


def write_sums(folder: Path, shards: Iterable[Shard]) -> None:
    """Writes `SHA256SUMS` for the shards in `folder`, its columns and, if it has one, its index."""
    sums = [pair for shard in shards for pair in zip(shard.files, shard.sums, strict=True)]
    for path in (*sorted((folder / COLUMNS).iterdir()), folder / INDEX):
        if path.exists():
            sums.append((path, _sum_and_sync(path)))
    lines = (f"{digest}  {path.relative_to(folder).as_posix()}\n" for path, digest in sums)
    (folder / SUMS).write_text("".join(lines))


def text_of(strings: Iterable[str]) -> UInt8[np.ndarray, " T"]:
    """Strings in UTF-8 with a NUL between them."""
    return np.frombuffer("\0".join(strings).encode(), np.uint8)


def _sum_and_sync(path: Path) -> str:
    with path.open("rb") as file:
        os.fsync(file.fileno())
        return hashlib.file_digest(file, "sha256").hexdigest()
