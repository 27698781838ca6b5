"""Writes the shards of a prepared set, each with a table of its records (tables.py reads them).

A table (`<shard>.npz`) has one row per record, in order, so opening a set reads no image. The
records' descriptors are beside it (`<shard>.descriptors`), for whom needs them: they are five times
as large. `index.npz` has what is true of the version as a whole. `SHA256SUMS` has the sum of every
file, in the format of `sha256sum --check`. A written file never changes.
"""

import contextlib
import hashlib
import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from jaxgear.data.folder import Record, paths_of
from jaxgear.errors import DataError
from jaxgear.text import stable_key

NAME = "gear"  # name of the TFDS set
FEATURES = {"image", "label", "path", "sha256", "group"}  # of its records
SUMS = "SHA256SUMS"
INDEX = "index.npz"
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
        return (self.path, table_of(self.path), descriptors_of(self.path))[: len(self.sums) or 3]


def shard_name(split: str, index: int, count: int) -> str:
    """The file name that TFDS expects."""
    return f"{NAME}-{split}.array_record-{index:05d}-of-{count:05d}"


def table_of(shard: Path) -> Path:
    """The path of a shard's table."""
    return shard.with_name(shard.name + ".npz")


def descriptors_of(shard: Path) -> Path:
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
        raise DataError(f"{shard.path}: cannot be written: {str(error).splitlines()[0]}") from error
    return write_table(shard)


def write_table(shard: Shard) -> tuple[str, ...]:
    """The part of `write_shard` after the shard itself."""
    path, records = shard.path, shard.records
    with descriptors_of(path).open("wb") as file:
        file.writelines(record.descriptor for record in records)
    columns = {
        "path": _text(r.path for r in records),
        "sha256": _digests(r.sha256 for r in records),
        "stored": _digests(shard.stored),
        "group": _groups([str(record.group) for record in records]),
        "label": np.array([r.label for r in records], np.int32),
        "height": np.array([r.height for r in records], np.int32),
        "width": np.array([r.width for r in records], np.int32),
        "bytes": np.array([file.stat().st_size for file in (path, descriptors_of(path))]),
    }
    with table_of(path).open("wb") as file:
        np.savez(file, **columns)
    return tuple(map(_sum_and_sync, (path, table_of(path), descriptors_of(path))))


def write_index(
    folder: Path, shards: Iterable[Shard], classes: Sequence[str], fingerprint: str
) -> None:
    """Writes `index.npz` of a version: the order of its paths, and its fingerprint.

    Both follow from the tables, but take a minute for ten million images.

    Args:
        shards: in the order in which `read_tables` reads them: splits sorted by name.
    """
    paths = [path for shard in shards for path in paths_of(shard.records)]
    order = sorted(range(len(paths)), key=lambda row: stable_key(paths[row]))
    columns = {
        "order": np.array(order, np.uint32 if len(order) < 2**32 else np.uint64),
        "classes": _text(classes),
        "fingerprint": np.frombuffer(bytes.fromhex(fingerprint), np.uint8),
    }
    with (folder / INDEX).open("wb") as file:
        np.savez(file, **columns)


def write_sums(folder: Path, shards: Iterable[Shard]) -> None:
    """Writes `SHA256SUMS` for the shards in `folder`, and for its index if there is one."""
    sums = [pair for shard in shards for pair in zip(shard.files, shard.sums, strict=True)]
    if (folder / INDEX).exists():
        sums.append((folder / INDEX, _sum_and_sync(folder / INDEX)))
    (folder / SUMS).write_text("".join(f"{digest}  {path.name}\n" for path, digest in sums))


def _text(strings: Iterable[str]) -> np.ndarray:
    """Strings in UTF-8 with a NUL between them, u8 [T]."""
    return np.frombuffer("\0".join(strings).encode(), np.uint8)


def _groups(groups: Sequence[str]) -> np.ndarray:
    """Groups of 12 hexadecimal digits as u8 [N, 6], else their names, S [N]."""
    if all(re.fullmatch("[0-9a-f]{12}", group) for group in groups):
        return np.frombuffer(bytes.fromhex("".join(groups)), np.uint8).reshape(-1, 6)
    return np.array([group.encode() for group in groups])


def _digests(hexadecimal: Iterable[str]) -> np.ndarray:
    """u8 [N, 32]"""
    return np.frombuffer(bytes.fromhex("".join(hexadecimal)), np.uint8).reshape(-1, 32)


def _sum_and_sync(path: Path) -> str:
    with path.open("rb") as file:
        os.fsync(file.fileno())
        return hashlib.file_digest(file, "sha256").hexdigest()
