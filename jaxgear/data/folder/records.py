"""Records of images: in a tuple, or as the columns of a prepared set, which behave as one.

A `Record` of a prepared set is made when it is asked for, so a set of millions of images opens
without an object an image.
"""

from bisect import bisect_left
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any, overload

import numpy as np
from jaxtyping import Int, Int32, Integer, UInt8

from jaxgear.data.folder.lazy import BLOCK, Column, equal_rows
from jaxgear.data.folder.names import ALL
from jaxgear.text import stable_key

_STORED = ("path", "sha256", "label", "split", "height", "width", "group")  # not the descriptor


@dataclass(frozen=True)
class Record:
    """One image that was decoded without a fault."""

    path: str  # POSIX, relative to the data folder, as on disk
    sha256: str  # of the file's bytes, hex
    label: int  # index into `Folder.classes`
    split: str | None  # "train", "val" or "test" where the folder has splits, else None
    height: int
    width: int
    descriptor: bytes  # for near-duplicates (data/images/descriptor.py)
    group: str | None = None  # group of near-duplicates in a prepared set, else None

    def __getattr__(self, name: str) -> bytes:
        """The descriptor of a record of `Records`, read from the disk when first asked for."""
        if name != "descriptor" or "_row" not in self.__dict__:
            raise AttributeError(name)
        table, row = self.__dict__["_row"]
        return self.__dict__.setdefault(name, table.describe(row))

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickled without the table that it came from."""
        return Record, tuple(getattr(self, field.name) for field in fields(self))


@dataclass(frozen=True, eq=False)
class Table:
    """The images of a prepared set: one array for each field, rows in the order of its shards."""

    text: UInt8[np.ndarray, " T"]  # all paths in UTF-8, a NUL after each
    starts: Integer[np.ndarray, " N"]  # of each path in `text`, ascending
    sha256: Column
    label: Int32[np.ndarray, " N"]
    split: Column  # values are indices into names.ALL
    height: Int32[np.ndarray, " N"]
    width: Int32[np.ndarray, " N"]
    group: Column
    describe: Callable[[int], bytes]  # the descriptor of a row
    before: "Table | None" = None  # without the rows that were added

    def path(self, row: int) -> str:
        return path_at(self.text, self.starts, row)

    def record(self, row: int) -> Record:
        """Makes the record of a row."""
        return self._record(
            row,
            self.path(row),
            self.sha256[row],
            self.label.item(row),
            self.split[row],
            self.height.item(row),
            self.width.item(row),
            self.group[row],
        )

    def records(self, rows: Integer[np.ndarray, " n"]) -> Iterator[Record]:
        """Makes the records of some rows, in a third of the time of `record`."""
        numbers = rows.tolist()
        return map(
            self._record,
            numbers,
            map(self.path, numbers),
            self.sha256.take(rows),
            self.label[rows].tolist(),
            self.split.take(rows),
            self.height[rows].tolist(),
            self.width[rows].tolist(),
            self.group.take(rows),
        )

    def grown(self, new: Sequence[Record]) -> "Table":
        """This table with rows for other records after its own. Each is a group by itself."""
        own, text = len(self.label), b"".join(record.path.encode() + b"\0" for record in new)
        text = np.concatenate([self.text, np.frombuffer(text, np.uint8)])
        ends = len(self.text) + np.cumsum([len(record.path.encode()) + 1 for record in new])
        starts = np.concatenate([self.starts, [len(self.text)], ends[:-1]])
        octets = bytes.fromhex("".join(record.sha256 for record in new))
        groups = np.array([int(record.sha256[:12], 16) for record in new], np.uint64)
        return Table(
            text=text,
            starts=starts.astype(np.uint32 if len(text) < 2**32 else np.uint64),
            sha256=self.sha256.followed_by(np.frombuffer(octets, "V32")),
            label=np.append(self.label, [record.label for record in new]).astype(np.int32),
            split=self.split.followed_by(
                np.array([ALL.index(record.split) for record in new], np.uint8)
            ),
            height=np.append(self.height, [record.height for record in new]).astype(np.int32),
            width=np.append(self.width, [record.width for record in new]).astype(np.int32),
            group=self.group.followed_by(groups),
            describe=lambda row: self.describe(row) if row < own else new[row - own].descriptor,
            before=self,
        )

    def _record(self, row: int, *values: str | int) -> Record:
        record = object.__new__(Record)
        record.__dict__.update(zip(_STORED, values, strict=True), _row=(self, row))
        return record


def path_at(text: UInt8[np.ndarray, " T"], starts: Integer[np.ndarray, " N"], row: int) -> str:
    """A path in a text of all paths (`Table`)."""
    end = len(text) if row + 1 == len(starts) else starts.item(row + 1)
    return text[starts.item(row) : end - 1].tobytes().decode()


class Records(Sequence[Record]):
    """Rows of a table, each at most once; behaves as a tuple of their records."""

    def __init__(self, table: Table, rows: Integer[np.ndarray, " n"], facts: Any = None):
        """`facts`: what is known of all of them (columns.py), or None."""
        self.table, self.rows, self.facts = table, rows, facts

    @cached_property
    def groups(self) -> Column:
        """The group of each record."""
        return self.table.group.take(self.rows)

    @cached_property
    def splits(self) -> Column:
        """The split of each record."""
        return self.table.split.take(self.rows)

    def __len__(self) -> int:
        return len(self.rows)

    @overload
    def __getitem__(self, row: int) -> Record: ...
    @overload
    def __getitem__(self, row: slice) -> "Records": ...
    def __getitem__(self, row):
        if isinstance(row, slice):
            return Records(self.table, self.rows[row])
        return self.table.record(self.rows.item(row))

    def __iter__(self) -> Iterator[Record]:
        for start in range(0, len(self), BLOCK):
            yield from self.table.records(self.rows[start : start + BLOCK])

    def __eq__(self, other: object) -> bool:
        return equal_rows(self, other)

    def take(self, rows: Integer[np.ndarray, " n"]) -> "Records":
        """Some of the records."""
        return Records(self.table, self.rows[rows])

    def grown(self, new: Sequence[Record]) -> "Records":
        """These records, which must be sorted by path, and others among them."""
        new = sorted(new, key=lambda record: stable_key(record.path))
        places = [self._before(stable_key(record.path)) for record in new]
        rows = len(self.table.label) + np.arange(len(new))
        return Records(self.table.grown(new), np.insert(self.rows, places, rows))

    def row_of(self, record: Record) -> int | None:
        """The row of the table that has a record's path; these records must be sorted by path."""
        table, row = record.__dict__.get("_row", (None, 0))
        same = table and (table.before or table).text is self.table.text  # maybe with other labels
        if same and row < len(self.table.label):
            return row
        place = self.place_of(record.path)
        return None if place is None else self.rows.item(place)

    def place_of(self, path: str) -> int | None:
        """The place of a path among these records, which must be sorted by path."""
        at = self._before(stable_key(path))
        return at if at < len(self) and self.table.path(self.rows.item(at)) == path else None

    def _before(self, key: Any) -> int:
        """The number of records whose paths sort before a key."""
        return bisect_left(self.rows, key, key=lambda row: stable_key(self.table.path(int(row))))


def rows_of_paths(records: Sequence[Record], paths: Collection[str]) -> Int[np.ndarray, " n"]:
    """The rows, ascending, of the records that have some paths. `Records`: sorted by path."""
    if isinstance(records, Records):
        return np.array(sorted({*map(records.place_of, paths)} - {None}), np.int64)
    return np.flatnonzero(np.fromiter((record.path in paths for record in records), bool))


class LazyRecords(Sequence[Record]):
    """Records that are made when asked for, as `LazyPictures` makes images."""

    def __init__(self, count: int, make: Callable[[int], Record]):
        """`make` returns the record of a row; many threads call it at once."""
        self._count, self._make = count, make

    def __len__(self) -> int:
        return self._count

    @overload
    def __getitem__(self, row: int) -> Record: ...
    @overload
    def __getitem__(self, row: slice) -> "LazyRecords": ...
    def __getitem__(self, row):
        if isinstance(row, slice):
            return self.take(np.arange(self._count)[row])
        return self._make(range(self._count)[row])

    def take(self, rows: Int[np.ndarray, " n"]) -> "LazyRecords":
        """Some of the records."""
        return LazyRecords(len(rows), lambda row: self._make(rows.item(row)))
