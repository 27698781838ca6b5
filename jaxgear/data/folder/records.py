"""Records of images: in a tuple, or as columns (of a prepared set), which behave as one.

A `Record` of columns is made when it is asked for, so a set of millions of images is prepared and
opened without an object an image.
"""

from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from itertools import repeat
from typing import Any, overload

import numpy as np
from jaxtyping import Int32, Integer, UInt8

from jaxgear.data.folder.names import OWN
from jaxgear.data.folder.strings import (
    BLOCK,
    Column,
    digests,
    equal_rows,
    grouped,
    grouped_by_hash,
    narrow,
    octets,
    path_at,
)
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
    split: Column  # values are indices into names.OWN
    height: Int32[np.ndarray, " N"]
    width: Int32[np.ndarray, " N"]
    group: Column | None  # None: groups are not known yet
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
            self.split[row] or None,
            self.height.item(row),
            self.width.item(row),
            self.group and self.group[row],
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
            (split or None for split in self.split.take(rows)),
            self.height[rows].tolist(),
            self.width[rows].tolist(),
            self.group.take(rows) if self.group else repeat(None),
        )

    @classmethod
    def of(cls, records: Sequence[Record]) -> "Table":
        """A table of records, in their order. They all have a group, or none has."""
        paths = [record.path.encode() + b"\0" for record in records]
        splits = [OWN.index(record.split or "") for record in records]
        groups = [record.group for record in records if record.group is not None]
        return cls(
            text=np.frombuffer(b"".join(paths), np.uint8),
            starts=narrow(np.cumsum([0, *map(len, paths)])[:-1]),
            sha256=digests(octets([record.sha256 for record in records])),
            label=np.array([record.label for record in records], np.int32),
            split=Column(np.array(splits, np.uint8), OWN.__getitem__),
            height=np.array([record.height for record in records], np.int32),
            width=np.array([record.width for record in records], np.int32),
            group=grouped(groups) if len(groups) == len(records) else None,
            describe=lambda row: records[row].descriptor,
        )

    def grown(self, new: Sequence[Record]) -> "Table":
        """This table with rows for other records after its own. Each is a group by itself."""
        own, more = len(self.label), Table.of(new)
        starts = np.concatenate([self.starts.astype(np.uint64), len(self.text) + more.starts])
        groups = grouped_by_hash([record.sha256 for record in new])
        return Table(
            text=np.concatenate([self.text, more.text]),
            starts=narrow(starts),
            sha256=self.sha256.followed_by(more.sha256.values),
            label=np.append(self.label, more.label),
            split=self.split.followed_by(more.split.values),
            height=np.append(self.height, more.height),
            width=np.append(self.width, more.width),
            group=self.group.followed_by(groups.values),
            describe=lambda row: self.describe(row) if row < own else new[row - own].descriptor,
            before=self,
        )

    def take(self, rows: Integer[np.ndarray, " n"], describe: Callable[[int], bytes]) -> "Table":
        """A table of some rows, which holds nothing of others. `describe` is of its rows."""
        text, starts = self.text_of(rows)
        columns = (self.sha256, self.split, self.group)
        sha256, split, group = (own and own.of(own.values[rows]) for own in columns)
        sizes = self.label[rows], split, self.height[rows], self.width[rows]
        return Table(text, starts, sha256, *sizes, group, describe)

    def text_of(
        self, rows: Integer[np.ndarray, " n"]
    ) -> tuple[UInt8[np.ndarray, " T"], Integer[np.ndarray, " n"]]:
        """`text` and `starts` of some rows."""
        first, rows = self.starts[rows].astype(np.int64), np.asarray(rows, np.int64)
        after = self.starts[np.minimum(rows + 1, len(self.starts) - 1)].astype(np.int64)
        lengths = np.where(rows + 1 < len(self.starts), after, len(self.text)) - first
        starts = np.cumsum(lengths) - lengths
        places = np.arange(lengths.sum()) + np.repeat(first - starts, lengths)
        return self.text[places], narrow(starts)

    def _record(self, row: int, *values: str | int | None) -> Record:
        record = object.__new__(Record)
        record.__dict__.update(zip(_STORED, values, strict=True), _row=(self, row))
        return record


class Records(Sequence[Record]):
    """Rows of a table, each at most once; behaves as a tuple of their records."""

    def __init__(self, table: Table, rows: Integer[np.ndarray, " n"], facts: Any = None):
        """`facts`: what is known of all of them (columns.py), or None."""
        self.table, self.rows, self.facts = table, rows, facts

    @classmethod
    def of(cls, records: Sequence[Record]) -> "Records":
        """Any records as columns."""
        if isinstance(records, cls):
            return records
        return cls(Table.of(records), np.arange(len(records)))

    @cached_property
    def sha256(self) -> Column:
        """The hash of each record."""
        return self.table.sha256.take(self.rows)

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
        return equal_rows(self, other, Records)

    def take(self, rows: Integer[np.ndarray, " n"]) -> "Records":
        """Some of the records."""
        return Records(self.table, self.rows[rows])

    def with_columns(self, **columns: Column) -> "Records":
        """These records with other columns of the table, by name: `group`, `split`."""
        table = self.table
        for name, column in columns.items():
            values = np.zeros(len(table.label), column.values.dtype)  # of other rows undefined
            values[self.rows] = column.values
            table = replace(table, **{name: column.of(values)})
        return Records(table, self.rows)

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
