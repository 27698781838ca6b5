"""The columns of a prepared set, filled table by table."""

import hashlib
import re
import struct
import zipfile
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Shaped, UInt8, UInt64

from jaxgear.data.folder import Column, Table
from jaxgear.data.folder.names import ALL
from jaxgear.data.tfds.descriptors import Descriptors, Stretch
from jaxgear.data.tfds.npz import arrays_in
from jaxgear.data.tfds.shards import SUMS, descriptors_of, table_of
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


class Filling:
    """The columns of a set of `count` rows, filled table by table."""

    def __init__(self, folder: Path, count: int, classes: int, sums: Mapping[str, str]):
        self._folder, self._classes, self._sums = folder, classes, sums
        self.parts: list[Part] = []
        self._stretches: list[Stretch] = []
        self._text = bytearray()
        self._starts = np.empty(count, np.int64)
        self._sha256, self.stored = np.empty((2, count, 32), np.uint8)
        self._label, self._height, self._width = np.empty((3, count), np.int32)
        self._number = np.empty(count, np.uint8)
        self._group = np.empty(count, np.uint64)
        self._names: dict[str, int] = {}  # of groups that are not 12 hexadecimal digits

    def table(self) -> Table:
        """The finished table."""
        return Table(
            text=self._text,
            starts=self._starts,
            sha256=digests(self._sha256),
            label=self._label,
            split=Column(self._number, ALL.__getitem__),
            height=self._height,
            width=self._width,
            group=Column(self._group, partial(_group_text, list(self._names))),
            describe=Descriptors(self._stretches, damaged),
        )

    def add(self, name: str, split: str, count: int) -> None:
        """Reads the table of a shard, which should have `count` rows."""
        first = self.parts[-1].rows.stop if self.parts else 0
        path, rows = self._folder / name, range(first, first + count)
        table, beside = table_of(path), [path, descriptors_of(path)]
        try:
            found = arrays_in(content(table, self._sums))
            columns = {name: array for name, (array, _) in found.items()}
            sizes = columns.pop("bytes").reshape(-1).tolist()  # of the files beside the table
            self._copy(columns, rows, split)
            if "look" in columns:  # older versions kept the descriptors here
                beside = [path]
                place = table, found["look"][1], columns["look"].shape, None
            else:
                place = beside[1], 0, (count, sizes[1] // count), self._sums[beside[1].name]
        except DAMAGE as error:
            raise damaged(table, error) from None
        for file, size in zip(beside, sizes, strict=True):
            try:
                if (actual := file.stat().st_size) != size:
                    raise ValueError(f"{actual} bytes instead of {size}")
                self._sums[file.name]
            except (OSError, ValueError, KeyError) as error:
                raise damaged(file, error) from None
        self._stretches.append(Stretch(first, *place))
        sums = tuple(self._sums[file.name] for file in (path, table, *beside[1:]))
        self.parts.append(Part(path, split, rows, sums))

    def _copy(self, columns: dict[str, Shaped[np.ndarray, "..."]], rows: range, split: str) -> None:
        """Copies the columns of a table to `rows`."""
        text = columns.pop("path").tobytes()
        text.decode()  # or a ValueError
        ends = np.append(np.flatnonzero(np.frombuffer(text, np.uint8) == 0), len(text))
        if len(ends) != len(rows):
            raise unlike(self._folder)
        descriptors = columns.get("look", np.zeros((len(rows), 0), np.uint8))
        sizes = {len(column) for column in columns.values()}
        if sizes != {len(rows)} or descriptors.dtype != np.uint8 or descriptors.ndim != 2:
            raise ValueError("its columns do not match")
        label = columns["label"]
        if label.min() < 0 or label.max() >= self._classes:
            raise ValueError("a label is not a class")
        own = slice(rows.start, rows.stop)
        self._starts[own] = len(self._text) + np.append(0, ends[:-1] + 1)
        self._text += text + b"\0"
        self._number[own] = ALL.index(split)
        self._group[own] = self._group_numbers(columns["group"])
        for name, column in (
            ("sha256", self._sha256),
            ("stored", self.stored),
            ("label", self._label),
            ("height", self._height),
            ("width", self._width),
        ):
            column[own] = columns[name]

    def _group_numbers(self, groups: Shaped[np.ndarray, " n"]) -> UInt64[np.ndarray, " n"]:
        """Groups as numbers: the first 12 digits of a hash, or a place in the list of names."""
        text = groups.tobytes()
        if re.fullmatch(rb"[0-9a-f]*", text) and groups.itemsize == 12:
            octets = np.zeros((len(groups), 8), np.uint8)
            octets[:, 2:] = np.frombuffer(bytes.fromhex(text.decode()), np.uint8).reshape(-1, 6)
            return octets.view(">u8")[:, 0].astype(np.uint64)
        names, number = np.unique(groups, return_inverse=True)
        return np.array([self._group_number(name.decode()) for name in names.tolist()], np.uint64)[
            number
        ]

    def _group_number(self, name: str) -> int:
        if re.fullmatch("[0-9a-f]{12}", name):
            return int(name, 16)
        return _HASHED + self._names.setdefault(name, len(self._names))


def _group_text(names: Sequence[str], number: int) -> str:
    return f"{number:012x}" if number < _HASHED else names[number - _HASHED]


def digests(octets: UInt8[np.ndarray, "N 32"]) -> Column:
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
