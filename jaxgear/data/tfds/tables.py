"""Reads what lies beside the shards of a prepared set, without an object an image.

Each file is compared with its sum: tables and columns when the set is opened, descriptors when one
is asked for.
"""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Shaped

from jaxgear.data.folder import (
    Alike,
    Column,
    Facts,
    Record,
    Records,
    digests,
    facts_of,
    fingerprint,
)
from jaxgear.data.folder.names import ALL
from jaxgear.data.tfds.columns import block_sums, read_columns, table_of_columns
from jaxgear.data.tfds.descriptors import Descriptors, Span
from jaxgear.data.tfds.older import Filling
from jaxgear.data.tfds.parts import (
    DAMAGE,
    LIMIT,
    Part,
    arrays_in,
    content,
    damaged,
    read_part,
    unlike,
)
from jaxgear.data.tfds.shards import COLUMNS, INDEX, SUMS, Shard, shard_name, text_of
from jaxgear.files import read_regular

Place = tuple[str, int, str]  # split of an image, its index there, sha256 (hex) of its stored bytes


@dataclass(frozen=True, eq=False)
class Tables:
    """All records of a set, and their places."""

    records: Records  # sorted by path
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
    folder: Path,
    lengths: Mapping[str, Sequence[int]],
    classes: tuple[str, ...],
    share: tuple[int, int] = (0, 1),
) -> Tables:
    """The tables of a set; `lengths` has the number of rows of each shard of a split.

    Of several hosts that open the set each checks its `share` of the columns (`read_columns`).
    Checks that each shard exists with its full length. Its content is checked on access, as are
    descriptors.

    Raises:
        DataError: a file is missing or damaged; the message names it.
    """
    sums = sums_of(folder)
    count = sum(map(sum, lengths.values()))
    if any(rows < 1 for own in lengths.values() for rows in own) or not count:
        raise unlike(folder)
    older = not any(name.startswith(f"{COLUMNS}/") for name in sums)
    filling = Filling(folder, count, len(classes)) if older else None
    index = _index(folder / INDEX, sums)
    blocks = {name[7:]: array for name, array in index.items() if name.startswith("blocks-")}

    def read(path: Path, split: str, rows: range) -> tuple[Part, Span]:
        part, span, arrays = read_part(path, split, rows, sums)
        if filling:
            filling.add(part, arrays)
        return part, span

    with ThreadPoolExecutor(os.cpu_count()) as pool:  # hashes and copies release the GIL
        found = pool.map(read, *zip(*_shards(folder, lengths), strict=True))
        parts, spans = zip(*found, strict=True)
        if filling:
            columns, names = filling.columns(parts)
        else:
            columns, names = read_columns(*(folder, sums, count, len(classes), pool, blocks, share))
    table = table_of_columns(columns, names, Descriptors(spans, damaged))
    facts = None
    if blocks:
        facts = Facts(
            counts=index["counts"].reshape(len(ALL), -1),
            groups=int(index["groups"][0]),
            conflicting=index["conflicting"],
            straddling=index["straddling"].reshape(-1, 2),
            mislabelled=index["mislabelled"].reshape(-1, 2),
            by_split=columns["by_split"],
        )
    records = Records(table, columns["order"], facts)
    return Tables(
        records=records,
        fingerprint=_fingerprint(index, classes) or fingerprint(classes, records),
        stored=digests(columns["stored"]),
        parts=parts,
        first={part.split: part.rows.start for part in reversed(parts)},
    )


def sums_of(folder: Path) -> dict[str, str]:
    """The sha256 (hex) of each file of a version; DataError if `SHA256SUMS` is damaged."""
    try:
        lines = read_regular(folder / SUMS, LIMIT).decode().splitlines()
        return {name: digest for digest, name in (line.split("  ", 1) for line in lines)}
    except (OSError, ValueError) as error:
        raise damaged(folder / SUMS, error) from None


def _shards(
    folder: Path, lengths: Mapping[str, Sequence[int]]
) -> Iterator[tuple[Path, str, range]]:
    """The path, the split and the rows of each shard."""
    first = 0
    for split, counts in lengths.items():
        for index, count in enumerate(counts):
            yield folder / shard_name(split, index, len(counts)), split, range(first, first + count)
            first += count


def write_index(
    folder: Path,
    classes: Sequence[str],
    fingerprint: str,
    alike: Callable[[Records], tuple[Alike, Alike]],
) -> None:
    """Writes `index.npz` of a version, so that opening it need not walk its columns.

    It holds the fingerprint and the classes that it is of (made anew, it takes a minute for ten
    million images), the facts about the records, and a hash of each block of each column, so that
    each of several hosts can check its own.

    Args:
        alike: finds near-duplicates in two splits, and those in two classes.
    """
    paths = sorted((folder / COLUMNS).iterdir())
    columns = {path.stem: np.asarray(np.load(path, mmap_mode="r")) for path in paths}
    groups = columns["names"].tobytes().decode().split("\0")[1:-1]
    table = table_of_columns(columns, groups, lambda row: b"")
    records = Records(table, columns["order"])
    facts = facts_of(records, len(classes), *alike(records))
    with (folder / INDEX).open("wb") as file:
        np.savez(
            file,
            classes=text_of(classes),
            fingerprint=np.frombuffer(bytes.fromhex(fingerprint), np.uint8),
            counts=facts.counts.reshape(-1),
            groups=np.array([facts.groups]),
            conflicting=facts.conflicting,
            straddling=facts.straddling.reshape(-1),
            mislabelled=facts.mislabelled.reshape(-1),
            **{f"blocks-{path.stem}": block_sums(path) for path in paths},
        )


def _index(path: Path, sums: Mapping[str, str]) -> dict[str, Shaped[np.ndarray, "..."]]:
    """The arrays of `index.npz`; {} if the set has none."""
    if path.name not in sums:
        return {}
    try:
        return {name: array for name, (array, _) in arrays_in(content(path, sums)).items()}
    except DAMAGE as error:
        raise damaged(path, error) from None


def _fingerprint(index: Mapping[str, Shaped[np.ndarray, "..."]], classes: tuple[str, ...]) -> str:
    """The fingerprint that was written with the set; "" if there is none, or of other classes."""
    if not index or index["classes"].tobytes() != text_of(classes).tobytes():
        return ""
    return index["fingerprint"].tobytes().hex()
