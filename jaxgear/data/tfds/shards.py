"""Shards of a prepared set, each with a table of its records.

A table (`<shard>.npz`) has one row per record, in order, so opening a set reads no image.
`SHA256SUMS` has the sum of every shard and table, in the format of `sha256sum --check`. A written
file never changes.
"""

import contextlib
import hashlib
import io
import os
import zipfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from jaxgear.data.folder import Record
from jaxgear.errors import DataError
from jaxgear.files import read_regular

NAME = "gear"  # name of the TFDS set
FEATURES = {"image", "label", "path", "sha256", "group"}  # of its records
SUMS = "SHA256SUMS"
UNFINISHED = ".new-"  # prefix of the folder of a version during writing

_LIMIT = 2**31  # bytes of one table; an image takes under one kilobyte
# Groups of one record, for random access. JPEG and PNG are compressed already.
_OPTIONS = "group_size:1,uncompressed"


@dataclass(frozen=True)
class Shard:
    """One array_record file."""

    path: Path
    split: str  # also the split of its records
    records: tuple[Record, ...]
    stored: tuple[str, ...]  # sha256 (hex) of each image's stored bytes
    sums: tuple[str, str]  # sha256 (hex) of the shard and of its table


def shard_name(split: str, index: int, count: int) -> str:
    """The file name that TFDS expects."""
    return f"{NAME}-{split}.array_record-{index:05d}-of-{count:05d}"


def table_of(shard: Path) -> Path:
    """The path of a shard's table."""
    return shard.with_name(shard.name + ".npz")


def write_shard(shard: Shard, rows: Iterable[bytes]) -> tuple[str, str]:
    """Writes a shard and its table, and waits until both are on the disk.

    Args:
        shard: complete except for its sums.
        rows: the serialised records with their images.

    Returns:
        The sums of the shard and its table.

    Raises:
        DataError: the disk is full.
    """
    from array_record.python.array_record_module import ArrayRecordWriter

    path, records = shard.path, shard.records
    try:
        with contextlib.closing(ArrayRecordWriter(os.fspath(path), _OPTIONS)) as writer:
            for row in rows:
                writer.write(row)
    except RuntimeError as error:  # from array_record, for example on a full disk
        raise DataError(f"{path}: cannot be written: {str(error).splitlines()[0]}") from error
    table = table_of(path)
    columns = {
        "path": np.frombuffer("\0".join(r.path for r in records).encode(), np.uint8),
        "sha256": _digests(r.sha256 for r in records),
        "stored": _digests(shard.stored),
        "group": np.array([r.group for r in records], "S12"),
        "look": np.stack([np.frombuffer(r.descriptor, np.uint8) for r in records]),
        "label": np.array([r.label for r in records], np.int32),
        "height": np.array([r.height for r in records], np.int32),
        "width": np.array([r.width for r in records], np.int32),
        "bytes": np.array(path.stat().st_size, np.int64),
    }
    with table.open("wb") as file:
        np.savez(file, **columns)
    return _sum_and_sync(path), _sum_and_sync(table)


def write_sums(folder: Path, shards: Iterable[Shard]) -> None:
    """Writes `SHA256SUMS` for shards in `folder`."""
    lines = [
        f"{digest}  {path.name}\n"
        for shard in shards
        for path, digest in zip((shard.path, table_of(shard.path)), shard.sums, strict=True)
    ]
    (folder / SUMS).write_text("".join(lines))


def read_shards(folder: Path, counts: dict[str, int], classes: int) -> list[Shard]:
    """The shards of a set, read from their tables; `counts` has their number in each split.

    Checks that each shard exists with its full length. Its content is checked on access.

    Raises:
        DataError: a table or shard is missing or damaged; the message names it.
    """
    try:
        lines = read_regular(folder / SUMS, _LIMIT).decode().splitlines()
        sums = {name: digest for digest, name in (line.split("  ", 1) for line in lines)}
    except (OSError, ValueError) as error:
        raise _damaged(folder / SUMS, error) from None
    return [
        _read_shard(folder / shard_name(split, index, count), split, sums, classes)
        for split, count in counts.items()
        for index in range(count)
    ]


def _read_shard(path: Path, split: str, sums: dict[str, str], classes: int) -> Shard:
    table = table_of(path)
    try:
        data = read_regular(table, _LIMIT)
        if hashlib.sha256(data).hexdigest() != sums.get(table.name):
            raise ValueError(f"does not match {SUMS}")
        with np.load(io.BytesIO(data), allow_pickle=False) as columns:
            records, stored, size = _rows(dict(columns), split, classes)
    except (OSError, ValueError, KeyError, zipfile.BadZipFile, EOFError) as error:
        raise _damaged(table, error) from None
    try:
        actual, digest = path.stat().st_size, sums[path.name]
        if actual != size:
            raise ValueError(f"{actual} bytes instead of {size}")
    except (OSError, ValueError, KeyError) as error:
        raise _damaged(path, error) from None
    return Shard(path, split, records, stored, (digest, sums[table.name]))


def _damaged(path: Path, error: Exception) -> DataError:
    reason = error.strerror if isinstance(error, OSError) else error
    return DataError(
        f"{path}: missing or damaged ({reason}); remove {path.parents[1]} and prepare it again"
    )


def _rows(
    columns: dict[str, np.ndarray], split: str, classes: int
) -> tuple[tuple[Record, ...], tuple[str, ...], int]:
    paths = columns["path"].tobytes().decode().split("\0")
    label, descriptor = columns["label"], columns["look"]
    sizes = {len(column) for name, column in columns.items() if name not in ("path", "bytes")}
    if sizes != {len(paths)} or descriptor.dtype != np.uint8 or descriptor.ndim != 2:
        raise ValueError("its columns do not match")
    if label.min() < 0 or label.max() >= classes:
        raise ValueError("a label is not a class")
    descriptors, width = descriptor.tobytes(), descriptor.shape[1]
    records = tuple(
        Record(
            path=path,
            sha256=sha256,
            label=number,
            split=split,
            height=height,
            width=breadth,
            descriptor=descriptors[row * width : (row + 1) * width],
            group=group.decode(),
        )
        for row, (path, sha256, group, number, height, breadth) in enumerate(
            zip(
                paths,
                _hexadecimal(columns["sha256"]),
                columns["group"].tolist(),
                label.tolist(),
                columns["height"].tolist(),
                columns["width"].tolist(),
                strict=True,
            )
        )
    )
    return records, tuple(_hexadecimal(columns["stored"])), int(columns["bytes"])


def _digests(hexadecimal: Iterable[str]) -> np.ndarray:
    """u8 [N, 32]"""
    return np.frombuffer(bytes.fromhex("".join(hexadecimal)), np.uint8).reshape(-1, 32)


def _hexadecimal(digests: np.ndarray) -> list[str]:
    text = digests.tobytes().hex()
    return [text[start : start + 64] for start in range(0, len(text), 64)]


def _sum_and_sync(path: Path) -> str:
    with path.open("rb") as file:
        os.fsync(file.fileno())
        return hashlib.file_digest(file, "sha256").hexdigest()
