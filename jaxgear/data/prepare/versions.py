"""Writes versions of a prepared set: `OUT/gear/1.0.0`, `2.0.0` and so on, each in one rename.

The next version reuses unchanged shards as hard links. New and changed records go to new shards.
Older versions stay, for runs that read them.
"""

import os
import shutil
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int, Shaped

from jaxgear.data.dataset import Dataset
from jaxgear.data.folder import Records, octets, sortable
from jaxgear.data.prepare.changes import Changes
from jaxgear.data.prepare.decoding.images import Images, blank
from jaxgear.data.prepare.gear_builder import write_info
from jaxgear.data.prepare.writing import Each, write_shards
from jaxgear.data.splits import NEAR_DUPLICATES, near_duplicate_pairs
from jaxgear.data.tfds.columns import write_columns
from jaxgear.data.tfds.read import TfdsFolder, read_tfds
from jaxgear.data.tfds.sets import newest_version
from jaxgear.data.tfds.shards import COLUMNS, NAME, UNFINISHED, Shard, write_sums
from jaxgear.data.tfds.tables import write_index
from jaxgear.errors import DataError, UsageError


def last(base: Path, chosen: dict[str, Any]) -> TfdsFolder | None:
    """The newest version, if there is one.

    Args:
        chosen: size, seed and group_by.

    Raises:
        DataError: it is damaged, or `prepare` did not write it.
        UsageError: it was prepared with other choices.
    """
    if newest_version(base) is None:
        return None
    before = read_tfds(f"{NAME}@{base.parent}", size=1)
    if "recipe" not in before.metadata:
        raise DataError(
            f"{before.root}: `jaxgear prepare` did not write this; choose another place"
        )
    for name, value in chosen.items():
        # Older sets do not record the grouping; it was always near-duplicates.
        if (has := before.metadata.get(name, NEAR_DUPLICATES)) != value:
            name = name.replace("_", "-")
            flag = f"--{name} {has}" if has is not None else f"no --{name}"
            raise UsageError(
                f"{base}: was prepared with {flag}; repeat that, or choose another place"
            )
    return before


def rows_of(before: TfdsFolder) -> Shaped[np.ndarray, " n"]:
    """The images of a version, as `Images.add_version` takes them."""
    table = before.records.table
    rows = blank(len(table.label))
    rows["sha256"] = sortable(table.sha256)
    rows["height"], rows["width"] = table.height, table.width
    for shard in before.shards:
        own = shard.records.rows
        rows["stored"][own] = octets(shard.stored).view("V32")[:, 0]
        rows["length"][own] = shard.path.stat().st_size // len(own)
    return rows


def write_version(
    base: Path,
    before: TfdsFolder | None,
    dataset: Dataset,
    images: Images,
    metadata: dict[str, Any],
    each: Each = map,
) -> tuple[Path, str]:
    """Writes the version after `before` to `base`; returns its folder and a summary.

    Writes nothing if `before` has the same records and the same `metadata["recipe"]`.

    Args:
        dataset: its records are columns.
        images: those of all records.
        each: writes the shards; `map`, or the like over other processes. They cannot read the
            images of the version before.
    """
    records = dataset.folder.records.with_columns(group=dataset.groups, split=dataset.splits)
    same = before is not None and before.metadata["recipe"] == metadata["recipe"]
    changes = Changes(before, records) if before else None
    kept = changes.kept() if same else []
    new = records.take(changes.places_outside(kept)) if kept else records
    unchanged = same and not len(new) and len(kept) == len(before.shards)
    if unchanged and before.classes == dataset.classes:
        return before.root, "nothing has changed"

    version = f"{int(before.root.name.split('.')[0]) + 1 if before else 1}.0.0"
    folder = base / f"{UNFINISHED}{version}"
    if folder.exists():  # left by a killed run
        shutil.rmtree(folder)
    folder.mkdir()
    shards = write_shards(folder, kept, new, images, each)
    sizes = defaultdict(list)
    for shard in shards:
        sizes[shard.split].append((len(shard.records), shard.path.stat().st_size))
    write_columns(folder, shards, _places(shards, records, changes))
    write_index(folder, dataset.classes, dataset.folder.fingerprint, near_duplicate_pairs)
    write_sums(folder, shards)
    metadata = metadata | {"fingerprint": dataset.folder.fingerprint}
    write_info(folder, version, dataset.classes, dict(sizes), metadata)
    _sync(folder / COLUMNS)
    _sync(folder)
    folder.rename(base / version)
    _sync(base)
    summary = f"{len(shards) - len(kept)} shards written, {len(kept)} kept"
    return base / version, summary + (changes.summary() if changes else "")


def _places(
    shards: Sequence[Shard], records: Records, changes: Changes | None
) -> Int[np.ndarray, " N"]:
    """Of each row of the shards its place in `records`, which are sorted by path."""
    place = np.zeros(len(records.table.label), np.int64)
    place[records.rows] = np.arange(len(records))
    return np.concatenate(
        [
            (place if shard.records.table is records.table else changes.place)[shard.records.rows]
            for shard in shards
        ]
    )


def _sync(folder: Path) -> None:
    """Waits until the names in a folder are on the disk."""
    if os.name == "nt":  # Windows cannot open a folder
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
