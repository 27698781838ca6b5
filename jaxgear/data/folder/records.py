"""Records of images: in a tuple, or as the columns of a prepared set, which behave as one.

A `Record` of a prepared set is made when it is asked for, so a set of millions of images opens
without an object an image.
"""

import operator
from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any, NamedTuple, overload

import numpy as np
from jaxtyping import Int, Int32, Integer, Shaped, UInt8, UInt64

from jaxgear.text import stable_key

_BLOCK = 4096  # rows that are converted at a time
_STORED = ("path", "sha256", "label", "split", "height", "width", "group")  # not the descriptor
_MANY = 2**20  # rows that are looked at at a time
_LOW = np.uint64(2**24 - 1)  # the bits of a value that `runs_of` looks at first


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


class Runs(NamedTuple):
    """The rows of values that may occur more than once, with equal values beside each other."""

    rows: Int[np.ndarray, " n"]
    starts: Int[np.ndarray, " m"]  # where a value starts in `rows`


def runs_of(values: UInt64[np.ndarray, " N"]) -> Runs:
    """The runs of all values that occur more than once, and of a few others."""
    ordered = np.sort(values)
    twice = ordered[1:][ordered[1:] == ordered[:-1]]
    del ordered
    marked = np.zeros(int(_LOW) + 1 if len(twice) else 0, bool)
    marked[twice & _LOW] = True  # rows with these low bits are looked at; one in 16 in vain
    parts = [np.zeros(0, np.int64)]
    for start in range(0, len(values) if len(twice) else 0, _MANY):
        parts.append(start + np.flatnonzero(marked[values[start : start + _MANY] & _LOW]))
    rows = np.concatenate(parts)
    rows = rows[np.argsort(values[rows])]
    own = values[rows]
    return Runs(rows, np.flatnonzero(np.append(True, own[1:] != own[:-1])[: len(rows)]))


class Column(Sequence[str]):
    """Strings that are made of the values of an array when asked for; behaves as a tuple of them.

    Equal strings have equal values. A list of the same strings is equal too.
    """

    def __init__(self, values: Shaped[np.ndarray, " N"], text: Callable[[Any], str]):
        """`text` gives the string of a value, which it gets as Python's own number or bytes."""
        self.values, self._text = values, text

    def __len__(self) -> int:
        return len(self.values)

    @overload
    def __getitem__(self, row: int) -> str: ...
    @overload
    def __getitem__(self, row: slice) -> "Column": ...
    def __getitem__(self, row):
        if isinstance(row, slice):
            return self.take(row)
        return self._text(self.values.item(row))

    def __iter__(self) -> Iterator[str]:
        for start in range(0, len(self), _BLOCK):
            yield from map(self._text, self.values[start : start + _BLOCK].tolist())

    def __eq__(self, other: object) -> bool:
        return _equal(self, other)

    @cached_property
    def runs(self) -> Runs:
        """`runs_of` the values, found once."""
        return runs_of(self.values)

    def take(self, rows: slice | Shaped[np.ndarray, " n"]) -> "Column":
        """The strings of some rows, which are gathered when first looked at."""
        return _Taken(self, rows)

    def counts(self) -> dict[str, int]:
        """How often each of a few strings is there, in the order of their first rows."""
        values, counts = np.unique(self.values, return_counts=True)
        first = [int((self.values == value).argmax()) for value in values]
        order = np.argsort(first)
        return dict(zip(Column(values[order], self._text), counts[order].tolist(), strict=True))


class _Taken(Column):
    """Some rows of another column."""

    def __init__(self, column: Column, rows: slice | Shaped[np.ndarray, " n"]):
        self._column, self._rows, self._text = column, rows, column._text

    def __len__(self) -> int:
        return len(self.values if isinstance(self._rows, slice) else self._rows)

    @cached_property
    def values(self) -> Shaped[np.ndarray, " N"]:
        return self._column.values[self._rows]


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
        for start in range(0, len(self), _BLOCK):
            yield from self.table.records(self.rows[start : start + _BLOCK])

    def __eq__(self, other: object) -> bool:
        return _equal(self, other)

    def take(self, rows: Integer[np.ndarray, " n"]) -> "Records":
        """Some of the records."""
        return Records(self.table, self.rows[rows])

    def row_of(self, record: Record) -> int | None:
        """The row of the table that has a record's path; these records must be sorted by path."""
        table, row = record.__dict__.get("_row", (None, None))
        if table is not None and table.text is self.table.text:  # also with other labels
            return row
        place = self.place_of(record.path)
        return None if place is None else self.rows.item(place)

    def place_of(self, path: str) -> int | None:
        """The place of a path among these records, which must be sorted by path."""
        key = stable_key(path)
        at = bisect_left(self.rows, key, key=lambda row: stable_key(self.table.path(int(row))))
        return at if at < len(self) and self.table.path(self.rows.item(at)) == path else None


def _equal(one: Sequence[Any], other: object) -> bool:
    like = isinstance(other, tuple | list | type(one)) and len(one) == len(other)
    return like and all(map(operator.eq, one, other))
