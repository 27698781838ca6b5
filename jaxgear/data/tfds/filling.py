"""The columns of a prepared set, filled table by table."""

import hashlib
import os
import re
import struct
import threading
import zipfile
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Int, Shaped, UInt8, UInt64

from jaxgear.data.folder import Column, Table
from jaxgear.data.folder.names import ALL
from jaxgear.data.tfds.descriptors import Descriptors, Stretch
from jaxgear.data.tfds.npz import arrays_in
from jaxgear.data.tfds.shards import SUMS, descriptors_of, shard_name, table_of
from jaxgear.errors import DataError
from jaxgear.files import read_regular

LIMIT = 2**31  # bytes of one table; an image takes under one kilobyte
DAMAGE = (OSError, ValueError, LookupError, zipfile.BadZipFile, struct.error)

_HASHED = 2**48  # groups below are 12 hexadecimal digits, others places in a list of names


class Part(NamedTuple):
    """The rows of a shard."""

    path: Path
    split: str
    rows: range
    sums: tuple[str, ...]


class _Read(NamedTuple):
    """What was read of a table beside the columns that are filled already."""

    part: Part
    descriptors: Stretch
    text: memoryview  # u8, the paths with a NUL between them
    ends: Int[np.ndarray, " n"]  # of each path in it


class Filling:
    """The columns of a set, filled by several threads, table by table."""

    def __init__(
        self,
        folder: Path,
        lengths: Mapping[str, Sequence[int]],
        classes: int,
        sums: Mapping[str, str],
    ):
        """`lengths` has the number of rows of each shard of a split."""
        self._folder, self._classes, self._sums = folder, classes, sums
        counts = [count for own in lengths.values() for count in own]
        ends = np.cumsum(counts).tolist()
        rows = (range(end - count, end) for end, count in zip(ends, counts, strict=True))
        self._shards = [
            (shard_name(split, index, len(own)), split, next(rows))
            for split, own in lengths.items()
            for index in range(len(own))
        ]
        self._lock = threading.Lock()
        self._sha256, self._stored = np.empty((2, sum(counts), 32), np.uint8)
        self._label, self._height, self._width = np.empty((3, sum(counts)), np.int32)
        self._number = np.empty(sum(counts), np.uint8)
        self._group = np.empty(sum(counts), np.uint64)
        self._names: dict[str, int] = {}  # of groups that are not 12 hexadecimal digits

    def fill(self) -> tuple[Table, Column, tuple[Part, ...]]:
        """The table, the sha256 of its rows' stored bytes, and its parts."""
        parts, stretches, text = [], [], bytearray()
        starts = np.empty(len(self._label), np.uint32)
        with ThreadPoolExecutor(os.cpu_count()) as pool:  # copies and hashes release the GIL
            for read in pool.map(self._read, *zip(*self._shards, strict=True)):
                if len(text) + len(read.text) >= 2**32 and starts.dtype == np.uint32:
                    starts = starts.astype(np.int64)
                parts.append(read.part)
                stretches.append(read.descriptors)
                own = slice(read.part.rows.start, read.part.rows.stop)
                starts[own] = len(text) + np.append(0, read.ends[:-1] + 1)
                text += read.text
                text.append(0)
        table = Table(
            text=text,
            starts=starts,
            sha256=_digests(self._sha256),
            label=self._label,
            split=Column(self._number, ALL.__getitem__),
            height=self._height,
            width=self._width,
            group=Column(self._group, partial(_group_text, list(self._names))),
            describe=Descriptors(stretches, damaged),
        )
        return table, _digests(self._stored), tuple(parts)

    def _read(self, name: str, split: str, rows: range) -> _Read:
        """Reads the table of a shard."""
        path = self._folder / name
        table, beside = table_of(path), [path, descriptors_of(path)]
        try:
            found = arrays_in(content(table, self._sums))
            columns = {name: array for name, (array, _) in found.items()}
            sizes = columns.pop("bytes").reshape(-1).tolist()  # of the files beside the table
            text = columns.pop("path").data
            str(text, "utf-8")  # or a ValueError
            ends = np.append(np.flatnonzero(np.frombuffer(text, np.uint8) == 0), len(text))
            if len(ends) != len(rows):
                raise unlike(self._folder)
            self._copy(columns, slice(rows.start, rows.stop), split)
            if "look" in columns:  # older versions kept the descriptors here
                beside = [path]
                place = table, found["look"][1], columns["look"].shape, None
            else:
                width = sizes[1] // len(rows)
                place = beside[1], 0, (len(rows), width), self._sums[beside[1].name]
        except DAMAGE as error:
            raise damaged(table, error) from None
        for file, size in zip(beside, sizes, strict=True):
            try:
                if (actual := file.stat().st_size) != size:
                    raise ValueError(f"{actual} bytes instead of {size}")
                self._sums[file.name]
            except (OSError, ValueError, KeyError) as error:
                raise damaged(file, error) from None
        sums = tuple(self._sums[file.name] for file in (path, table, *beside[1:]))
        part = Part(path, split, rows, sums)
        return _Read(part, Stretch(rows.start, *place), text, ends)

    def _copy(self, columns: dict[str, Shaped[np.ndarray, "..."]], rows: slice, split: str) -> None:
        """Copies the columns of a table to `rows`."""
        count, label = rows.stop - rows.start, columns["label"]
        descriptors = columns.get("look", np.zeros((count, 0), np.uint8))
        sizes = {len(column) for column in columns.values()}
        if sizes != {count} or descriptors.dtype != np.uint8 or descriptors.ndim != 2:
            raise ValueError("its columns do not match")
        if label.min() < 0 or label.max() >= self._classes:
            raise ValueError("a label is not a class")
        self._number[rows] = ALL.index(split)
        self._group[rows] = self._group_numbers(columns["group"])
        for name, column in (
            ("sha256", self._sha256),
            ("stored", self._stored),
            ("label", self._label),
            ("height", self._height),
            ("width", self._width),
        ):
            column[rows] = columns[name]

    def _group_numbers(self, groups: Shaped[np.ndarray, "n ..."]) -> UInt64[np.ndarray, " n"]:
        """Groups as numbers: the first 12 digits of a hash, or a place in the list of names."""
        if groups.dtype == np.uint8:
            octets = np.zeros((len(groups), 8), np.uint8)
            octets[:, 2:] = groups
            return octets.view(">u8")[:, 0].astype(np.uint64)
        names, number = np.unique(groups, return_inverse=True)
        with self._lock:
            numbers = [self._group_number(name.decode()) for name in names.tolist()]
        return np.array(numbers, np.uint64)[number]

    def _group_number(self, name: str) -> int:
        if re.fullmatch("[0-9a-f]{12}", name):
            return int(name, 16)
        return _HASHED + self._names.setdefault(name, len(self._names))


def _group_text(names: Sequence[str], number: int) -> str:
    return f"{number:012x}" if number < _HASHED else names[number - _HASHED]


def _digests(octets: UInt8[np.ndarray, "N 32"]) -> Column:
    """Hashes as hexadecimal strings."""
    return Column(octets.view("V32")[:, 0], bytes.hex)


def damaged(path: Path, error: Exception) -> DataError:
    """The error about a file of a set that is missing or not what its sum says."""
    reason = error.strerror if isinstance(error, OSError) else error
    return DataError(
        f"{path}: missing or damaged ({reason}); remove {path.parents[1]} and prepare it again"
    )


def unlike(folder: Path) -> DataError:
    """The error about a set whose files are not of one version."""
    return DataError(
        f"{folder}: its tables do not match its shards; remove it and prepare it again"
    )


def content(path: Path, sums: Mapping[str, str]) -> bytes:
    """The content of a file; OSError or ValueError if it is missing or not what its sum says."""
    data = read_regular(path, LIMIT)
    if hashlib.sha256(data).hexdigest() != sums.get(path.name):
        raise ValueError(f"does not match {SUMS}")
    return data
