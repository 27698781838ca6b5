"""The task `tables` of scripts/scale.py: a prepared set of any size that holds one image."""

import argparse
import hashlib
import os
import random
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from jaxgear.data.folder import Record
from jaxgear.data.prepare.gear_builder import write_info
from jaxgear.data.prepare.writing import serialize
from jaxgear.data.splits import near_duplicate_pairs
from jaxgear.data.synthetic import CLASSES
from jaxgear.data.tfds.columns import write_columns
from jaxgear.data.tfds.shards import (
    Shard,
    shard_name,
    write_shard,
    write_sums,
    write_table,
)
from jaxgear.data.tfds.tables import read_tables, write_index

ROWS = 13_000  # of a shard: 128 MB of images of 10 kB
_SHARES = {"left_out": 0.05, "test": 0.15, "train": 0.65, "val": 0.15}
_IMAGE = bytes(100)
_DESCRIPTOR = 548  # bytes


def write(arguments: argparse.Namespace) -> dict[str, Any]:
    """Writes `arguments.folder`/gear/1.0.0. Rows and tables are real; images cannot be decoded.

    Shards of equal length are one file with several names.
    """
    folder = arguments.folder / "gear" / "1.0.0"
    folder.mkdir(parents=True)
    shards: list[Shard] = []
    lengths = {}
    for split, share in _SHARES.items():
        rows = round(share * arguments.count)
        lengths[split] = [min(ROWS, rows - at) for at in range(0, rows, ROWS)]

    def written() -> Iterator[Shard]:
        """Writes one shard after the other; the records of all would fill the memory."""
        first = 0
        for split, counts in lengths.items():
            for index, count in enumerate(counts):
                path = folder / shard_name(split, index, len(counts))
                shard = _write_shard(path, split, range(first, first + count), shards)
                shards.append(replace(shard, records=(), stored=()))
                first += count
                yield shard

    write_columns(folder, written())
    write_sums(folder, shards)
    tables = read_tables(folder, lengths, CLASSES)
    write_index(folder, CLASSES, tables.fingerprint, near_duplicate_pairs)
    write_sums(folder, shards)
    size = len(serialize(next(_records("train", range(1))), _IMAGE))
    sizes = {split: [(rows, rows * size) for rows in own] for split, own in lengths.items()}
    chosen = {"size": 128, "seed": 0, "group_by": "near-duplicates"}
    write_info(
        folder,
        "1.0.0",
        CLASSES,
        sizes,
        {"recipe": "made up", **chosen, "fingerprint": tables.fingerprint},
    )
    return {
        "pictures": len(tables.records),
        "shards": len(shards),
        "fingerprint": tables.fingerprint,
    }


def _write_shard(path: Path, split: str, rows: range, before: list[Shard]) -> Shard:
    records = sorted(_records(split, rows), key=lambda record: (record.sha256, record.path))
    shard = Shard(path, split, records, [record.sha256 for record in records], ())
    same = [other for other in before[:1] if len(rows) == ROWS]
    if same:
        os.link(same[0].path, path)
        sums = write_table(shard)
    else:
        sums = write_shard(shard, [serialize(records[0], _IMAGE)] * len(rows))
    return replace(shard, sums=sums)


def _records(split: str, rows: range) -> Iterator[Record]:
    looks = random.Random(rows.start)
    for row in rows:
        first = row - (row % 10 == 1)  # of its group
        own = first if row % 100 == 1 else row  # a copy has the bytes of the first
        label = (first + (row % 10_000 == 11)) % len(CLASSES)  # a few are in two classes
        digest, group = (hashlib.sha256(b"%d" % number).hexdigest() for number in (own, first))
        yield Record(
            f"{CLASSES[label]}/{row:09d}.jpg",
            digest,
            label,
            split,
            480,
            640,
            looks.randbytes(_DESCRIPTOR),
            group[:12],
        )
