"""One field of all records, as an array or a sequence.

Each function takes a tuple of records, or the `Records` of a prepared set, of which it makes no
`Record`. Some take `LazyRecords` too, and keep none of them.
"""

import hashlib
import json
import unicodedata
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int, Int32, Integer, UInt8

from jaxgear.data.folder.lazy import LazyDescriptors, LazyRecords
from jaxgear.data.folder.names import ALL, OWN
from jaxgear.data.folder.records import Record, Records
from jaxgear.data.folder.strings import Column, Runs, distinct, first_eight, runs_of
from jaxgear.text import stable_key


def labels_of(records: Sequence[Record]) -> Int32[np.ndarray, " N"]:
    """The label of each record."""
    if isinstance(records, Records):
        return records.table.label[records.rows]
    return np.array([record.label for record in records], np.int32)


def paths_of(records: Sequence[Record]) -> Sequence[str]:
    """The path of each record."""
    if isinstance(records, Records):
        return Column(records.rows, records.table.path)
    if isinstance(records, LazyRecords):
        return Column(np.arange(len(records)), lambda row: records[row].path)
    return tuple(record.path for record in records)


def hashes_of(records: Sequence[Record]) -> Sequence[str]:
    """The sha256 (hex) of each record's file."""
    if isinstance(records, Records):
        return records.sha256
    return [record.sha256 for record in records]


def sizes_of(records: Sequence[Record]) -> Int32[np.ndarray, "N 2"]:
    """Height and width of each record, in pixels."""
    if isinstance(records, Records):
        table, rows = records.table, records.rows
        return np.stack([table.height[rows], table.width[rows]], axis=1)
    return np.array([(record.height, record.width) for record in records], np.int32).reshape(-1, 2)


def descriptors_of(records: Sequence[Record]) -> Sequence[bytes]:
    """The descriptor of each record; of a table each is read when it is asked for."""
    if isinstance(records, Records):
        return LazyDescriptors(records)
    return [record.descriptor for record in records]


def taken(records: Sequence[Record], rows: Int[np.ndarray, " n"]) -> Sequence[Record]:
    """Some of the records."""
    if isinstance(records, Records | LazyRecords):
        return records.take(rows)
    return tuple(records[row] for row in rows.tolist())


def rows_of_paths(records: Sequence[Record], paths: Collection[str]) -> Int[np.ndarray, " n"]:
    """The rows, ascending, of the records that have some paths. `Records`: sorted by path."""
    if isinstance(records, Records):
        return np.array(sorted({*map(records.place_of, paths)} - {None}), np.int64)
    return np.flatnonzero(np.fromiter((record.path in paths for record in records), bool))


def rows_of_split(splits: Sequence[str], name: str) -> Int[np.ndarray, " n"]:
    """The rows of a split."""
    return np.flatnonzero(split_numbers(splits) == ALL.index(name))


def of_split(records: Sequence[Record], splits: Sequence[str], name: str) -> Sequence[Record]:
    """The records of a split."""
    if facts := facts_about(records, splits=splits):
        return Records(records.table, facts.rows_of(name))
    return taken(records, rows_of_split(splits, name))


def counts_of_splits(records: Sequence[Record], splits: Sequence[str]) -> dict[str, int]:
    """The number of records of each split that has any, in the order of their first records."""
    if facts := facts_about(records, splits=splits):
        numbers = dict(zip(ALL, facts.counts.sum(axis=1).tolist(), strict=True))
        found = [split for split in ALL if numbers[split]]
        first = {split: records.table.path(facts.rows_of(split).item(0)) for split in found}
        return {
            split: numbers[split] for split in sorted(found, key=lambda s: stable_key(first[s]))
        }
    return splits.counts() if isinstance(splits, Column) else dict(Counter(splits))


def counts_of_labels(
    records: Sequence[Record], splits: Sequence[str], name: str, classes: int
) -> Int[np.ndarray, " K"]:
    """The number of records of each of `classes` labels in a split."""
    if facts := facts_about(records, splits=splits):
        return facts.counts[ALL.index(name)]
    return np.bincount(labels_of(of_split(records, splits, name)), minlength=classes)


def split_numbers(splits: Iterable[str]) -> UInt8[np.ndarray, " N"]:
    """Splits as indices into `names.ALL`."""
    if isinstance(splits, Column):
        return splits.values
    return np.fromiter(map(ALL.index, splits), np.uint8)


def splits_and_labels(records: Sequence[Record]) -> set[tuple[str | None, int]]:
    """The pairs of a folder's own split and a label that occur."""
    if isinstance(records, Records) and records.facts:
        return {(ALL[split], label) for split, label in np.argwhere(records.facts.counts).tolist()}
    pairs = np.unique(len(OWN) * labels_of(records) + own_splits(records))
    return {(OWN[pair % len(OWN)] or None, pair // len(OWN)) for pair in pairs.tolist()}


def own_splits(records: Sequence[Record]) -> UInt8[np.ndarray, " N"]:
    """The split of each record that its folder gives it, as an index into `names.OWN`."""
    if isinstance(records, Records):
        return records.splits.values
    return np.fromiter((OWN.index(record.split or "") for record in records), np.uint8)


def _counts(records: Records, classes: int = 0) -> Int[np.ndarray, "S K"]:
    """The number of records of each split of `names.ALL` and each of at least `classes` labels."""
    table = records.table
    rows = slice(None) if len(records) == len(table.label) else records.rows  # each row once
    labels = table.label[rows]
    classes = max(classes, 1 + int(labels.max(initial=0)))
    pairs = len(ALL) * labels + table.split.values[rows]
    return np.bincount(pairs, minlength=len(ALL) * classes).reshape(classes, len(ALL)).T


def mixed(
    runs: Runs, low: Integer[np.ndarray, " n"], high: Integer[np.ndarray, " n"]
) -> Int[np.ndarray, " k"]:
    """The rows, ascending, of the runs with min(`low`) < max(`high`).

    `low` and `high` have a value for each entry of `runs.rows`.
    """
    if not len(runs.rows):
        return runs.rows
    several = np.minimum.reduceat(low, runs.starts) < np.maximum.reduceat(high, runs.starts)
    lengths = np.diff(np.append(runs.starts, len(runs.rows)))
    return np.sort(runs.rows[np.repeat(several, lengths)])


@dataclass(frozen=True, eq=False)
class Facts:
    """What is known of all records of a set without walking over them, written with the set.

    Rows are those of the table, in the order of the records. Near-duplicates are the pairs that
    data/splits/groups.py finds.
    """

    counts: Int[np.ndarray, "S K"]  # records of each split of `names.ALL` and each class
    groups: int  # different ones
    conflicting: Integer[np.ndarray, " a"]  # rows of equal bytes in several classes or splits
    straddling: Integer[np.ndarray, "b 2"]  # rows of near-duplicates in two splits
    mislabelled: Integer[np.ndarray, "c 2"]  # rows of near-duplicates in two classes
    by_split: Integer[np.ndarray, " N"]  # all rows, those of the first split of `names.ALL` first

    def rows_of(self, split: str) -> Integer[np.ndarray, " n"]:
        """The rows of a split, in the order of the records."""
        ends, number = np.append(0, np.cumsum(self.counts.sum(axis=1))), ALL.index(split)
        return self.by_split[ends[number] : ends[number + 1]]


def facts_about(
    records: Sequence[Record],
    groups: Sequence[str] | None = None,
    splits: Sequence[str] | None = None,
) -> Facts | None:
    """The facts stored with a set, if records, groups and splits are exactly its own; else None."""
    if not isinstance(records, Records) or records.facts is None:
        return None
    own = groups is None or groups is records.groups
    return records.facts if own and (splits is None or splits is records.splits) else None


Alike = Sequence[tuple[Record, Record]]  # near-duplicates


def facts_of(records: Records, classes: int, straddling: Alike, mislabelled: Alike) -> Facts:
    """Finds the other facts of all records of a set of so many classes."""
    rows = records.rows
    return Facts(
        counts=_counts(records, classes),
        groups=distinct(records.groups),
        conflicting=maybe_conflicting(records).rows,
        straddling=_rows_of(records, straddling),
        mislabelled=_rows_of(records, mislabelled),
        by_split=rows[np.argsort(records.splits.values, kind="stable")],
    )


def _rows_of(records: Records, pairs: Alike) -> Int[np.ndarray, "n 2"]:
    rows = [[records.row_of(record) for record in pair] for pair in pairs]
    return np.array(rows, np.int64).reshape(-1, 2)


def maybe_conflicting(records: Sequence[Record]) -> Sequence[Record]:
    """The records of equal bytes in several classes or splits; of a tuple all of them."""
    if not isinstance(records, Records):
        return records
    if records.facts:
        return Records(records.table, records.facts.conflicting)
    table = records.table
    runs = runs_of(first_eight(table.sha256))
    kind = table.label[runs.rows].astype(np.int64) * len(OWN) + table.split.values[runs.rows]
    rows = mixed(runs, kind, kind)
    return records.take(np.flatnonzero(np.isin(records.rows, rows)) if len(rows) else rows)


def distinct_groups(records: Sequence[Record], groups: Sequence[str]) -> int:
    """The number of groups of records."""
    facts = facts_about(records, groups)
    return facts.groups if facts else distinct(groups)


def fingerprint(classes: tuple[str, ...], records: Sequence[Record]) -> str:
    """sha256 (hex) of the set; changes if an image is edited, renamed, moved, added or removed.

    It is that of a JSON list of (class, NFC path, sha256) of all records, sorted. Made class by
    class, as text of all would take a kilobyte an image.
    """
    labels = labels_of(records)
    order = np.argsort(labels, kind="stable")
    ends = np.cumsum(np.bincount(labels, minlength=len(classes)))
    digest, before = hashlib.sha256(b"["), b""
    for label in sorted(range(len(classes)), key=classes.__getitem__):
        own = taken(records, order[ends[label - 1] if label else 0 : ends[label]])
        paths = (unicodedata.normalize("NFC", path) for path in paths_of(own))
        rows = sorted(zip(paths, hashes_of(own), strict=True))
        if rows:
            name = classes[label]
            digest.update(before + json.dumps([(name, *row) for row in rows])[1:-1].encode())
            before = b", "
    digest.update(b"]")
    return digest.hexdigest()
