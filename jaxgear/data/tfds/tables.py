"""Reads the tables of a prepared set (shards.py writes them) as columns, without an object a row.

Each file is compared with its sum: a table when the set is opened, descriptors when one is asked
for. Sets of older versions have no index, and their descriptors are in the tables.
"""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import UInt

from jaxgear.data.folder import Column, Record, Records, Table, fingerprint
from jaxgear.data.tfds.filling import (
    DAMAGE,
    LIMIT,
    Filling,
    Part,
    content,
    damaged,
    unlike,
)
from jaxgear.data.tfds.npz import arrays_in
from jaxgear.data.tfds.shards import INDEX, SUMS, Shard
from jaxgear.files import read_regular
from jaxgear.text import stable_key

Place = tuple[str, int, str]  # split of an image, its index there, sha256 (hex) of its stored bytes


@dataclass(frozen=True, eq=False)
class Tables:
    """The tables of a set."""

    records: Records  # all, sorted by path
    fingerprint: str
    stored: Column  # sha256 (hex) of the stored bytes of each row of `records.table`
    parts: tuple[Part, ...]
    first: Mapping[str, int]  # split -> its first row

    def place(self, record: Record) -> Place | None:
        """The place of a record, found by its path; None: the set has no such path."""
        row = self.records.row_of(record)
        if row is None:
            return None
        split = self.records.table.split[row]
        return split, row - self.first[split], self.stored[row]

    def shards(self) -> tuple[Shard, ...]:
        """The shards with their records, as they were written."""
        shards = []
        for path, split, rows, sums in self.parts:
            records = Records(self.records.table, np.arange(rows.start, rows.stop))
            shards.append(Shard(path, split, records, self.stored.take(records.rows), sums))
        return tuple(shards)


def read_tables(
    folder: Path, lengths: Mapping[str, Sequence[int]], classes: tuple[str, ...]
) -> Tables:
    """The tables of a set; `lengths` has the number of rows of each shard of a split.

    Checks that each shard exists with its full length. Its content is checked on access, as are
    descriptors.

    Raises:
        DataError: a table or shard is missing or damaged; the message names it.
    """
    try:
        lines = read_regular(folder / SUMS, LIMIT).decode().splitlines()
        sums = {name: digest for digest, name in (line.split("  ", 1) for line in lines)}
    except (OSError, ValueError) as error:
        raise damaged(folder / SUMS, error) from None
    table, stored, parts = Filling(folder, lengths, len(classes), sums).fill()
    known, order = "", None
    if INDEX in sums:
        known, order = _read_index(folder / INDEX, sums, len(table.label), classes)
    records = Records(table, _sorted_rows(folder, table) if order is None else order)
    return Tables(
        records=records,
        fingerprint=known or fingerprint(classes, records),
        stored=stored,
        parts=parts,
        first={part.split: part.rows.start for part in reversed(parts)},
    )


def _read_index(
    path: Path, sums: Mapping[str, str], count: int, classes: tuple[str, ...]
) -> tuple[str, UInt[np.ndarray, " N"]]:
    """The fingerprint ("" if the classes are others now) and the rows sorted by path."""
    try:
        columns = {name: array for name, (array, _) in arrays_in(content(path, sums)).items()}
        order, seen = columns["order"], np.zeros(count, bool)
        if order.shape == seen.shape and order.dtype.kind == "u" and order.max() < count:
            seen[order] = True
        if not seen.all():
            raise ValueError("its rows are not those of the tables")
        own = columns["classes"].tobytes() == "\0".join(classes).encode()
        return columns["fingerprint"].tobytes().hex() if own else "", order
    except DAMAGE as error:
        raise damaged(path, error) from None


def _sorted_rows(folder: Path, table: Table) -> UInt[np.ndarray, " N"]:
    """The rows sorted by path; without an index, which older versions do not have."""
    paths = [table.path(row) for row in range(len(table.label))]
    key = paths.__getitem__ if table.text.isascii() else lambda row: stable_key(paths[row])
    order = sorted(range(len(paths)), key=key)
    if any(paths[a] == paths[b] for a, b in itertools.pairwise(order)):
        raise unlike(folder)
    return np.array(order, np.uint64)
