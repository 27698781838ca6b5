"""One field of all records, as an array or a sequence.

Each function takes a tuple of records, or the `Records` of a prepared set, of which it makes no
`Record`.
"""

import hashlib
import json
import unicodedata
from collections.abc import Iterable, Sequence

import numpy as np
from jaxtyping import Int, Int32, Integer, UInt8, UInt64

from jaxgear.data.folder.names import ALL
from jaxgear.data.folder.records import Column, Record, Records, Runs, runs_of


def labels_of(records: Sequence[Record]) -> Int32[np.ndarray, " N"]:
    """The label of each record."""
    if isinstance(records, Records):
        return records.table.label[records.rows]
    return np.array([record.label for record in records], np.int32)


def paths_of(records: Sequence[Record]) -> Sequence[str]:
    """The path of each record."""
    if isinstance(records, Records):
        return Column(records.rows, records.table.path)
    return tuple(record.path for record in records)


def hashes_of(records: Sequence[Record]) -> Sequence[str]:
    """The sha256 (hex) of each record's file."""
    if isinstance(records, Records):
        return records.table.sha256.take(records.rows)
    return [record.sha256 for record in records]


def taken(records: Sequence[Record], rows: Int[np.ndarray, " n"]) -> Sequence[Record]:
    """Some of the records."""
    if isinstance(records, Records):
        return records.take(rows)
    return tuple(records[row] for row in rows.tolist())


def rows_of_split(splits: Sequence[str], name: str) -> Int[np.ndarray, " n"]:
    """The rows of a split."""
    return np.flatnonzero(split_numbers(splits) == ALL.index(name))


def split_numbers(splits: Iterable[str]) -> UInt8[np.ndarray, " N"]:
    """Splits as indices into `names.ALL`."""
    if isinstance(splits, Column):
        return splits.values
    return np.fromiter(map(ALL.index, splits), np.uint8)


def splits_and_labels(records: Sequence[Record]) -> set[tuple[str | None, int]]:
    """The pairs of a folder's own split and a label that occur."""
    if isinstance(records, Records):
        return records.splits_and_labels
    return {(record.split, record.label) for record in records}


def first_eight(sha256: Iterable[str]) -> UInt64[np.ndarray, " N"]:
    """The first 8 bytes of each hash (hex), as big-endian numbers."""
    if isinstance(sha256, Column):  # of 32 bytes each
        return sha256.values.view(">u8").reshape(len(sha256), 4)[:, 0].astype(np.uint64)
    return np.fromiter((int(text[:16], 16) for text in sha256), np.uint64)


def mixed(
    runs: Runs, low: Integer[np.ndarray, " n"], high: Integer[np.ndarray, " n"]
) -> Int[np.ndarray, " k"]:
    """The rows, ascending, of the runs whose smallest `low` is below their largest `high`.

    Both are of `runs.rows`.
    """
    if not len(runs.rows):
        return runs.rows
    several = np.minimum.reduceat(low, runs.starts) < np.maximum.reduceat(high, runs.starts)
    lengths = np.diff(np.append(runs.starts, len(runs.rows)))
    return np.sort(runs.rows[np.repeat(several, lengths)])


def maybe_conflicting(records: Sequence[Record]) -> Sequence[Record]:
    """The records of equal bytes in several classes or splits; of a tuple all of them."""
    if not isinstance(records, Records):
        return records
    table = records.table
    runs = runs_of(first_eight(table.sha256))
    kind = table.label[runs.rows].astype(np.int64) * len(ALL) + table.split.values[runs.rows]
    rows = mixed(runs, kind, kind)
    return records.take(np.flatnonzero(np.isin(records.rows, rows))) if len(rows) else ()


def distinct(strings: Sequence[str]) -> int:
    """The number of different strings."""
    if not isinstance(strings, Column):
        return len(set(strings))
    rows, starts = strings.runs
    return len(strings) - len(rows) + len(starts)


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
