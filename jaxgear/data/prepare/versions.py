"""Writes versions of a prepared set: `OUT/gear/1.0.0`, `2.0.0` and so on, each in one rename.

The next version reuses unchanged shards as hard links. New and changed records go to new shards.
Older versions stay, for runs that read them.
"""

import contextlib
import os
import shutil
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from jaxgear.cluster import Cluster
from jaxgear.data.dataset import Dataset
from jaxgear.data.folder import Record
from jaxgear.data.prepare.gear_builder import serialize, write_info
from jaxgear.data.prepare.staging import processes
from jaxgear.data.prepare.workshop import ToStore
from jaxgear.data.splits import NEAR_DUPLICATES, near_duplicate_pairs
from jaxgear.data.tfds.columns import write_columns
from jaxgear.data.tfds.read import TfdsFolder, read_tfds
from jaxgear.data.tfds.sets import newest_version
from jaxgear.data.tfds.shards import (
    COLUMNS,
    NAME,
    UNFINISHED,
    Shard,
    shard_name,
    write_shard,
    write_sums,
)
from jaxgear.data.tfds.tables import write_index
from jaxgear.errors import DataError, UsageError
from jaxgear.files import second_name

SHARD_BYTES = 128 * 2**20  # of images, about; TFDS recommends 100 to 200 MB
_WORTH_PROCESSES = 2**28  # bytes per process; writing less takes no longer than importing TFDS
_Job = tuple[Shard, list[Callable[[], bytes]]]  # a shard to write, and functions to read its images


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


def pictures_of(before: TfdsFolder) -> dict[str, ToStore]:
    """The images of a version, by the sha256 (hex) of their source files."""
    pictures = {}
    for shard in before.shards:
        length = shard.path.stat().st_size // len(shard.records)
        for record, stored in zip(shard.records, shard.stored, strict=True):
            read = partial(before.read, record)
            size = record.height, record.width
            pictures[record.sha256] = ToStore(*size, record.descriptor, stored, length, read)
    return pictures


def write_version(
    base: Path,
    before: TfdsFolder | None,
    dataset: Dataset,
    pictures: dict[str, ToStore],
    metadata: dict[str, Any],
    workers: int = 1,
    cluster: Cluster | None = None,
) -> tuple[Path, str]:
    """Writes the version after `before` to `base`; returns its folder and a summary.

    Writes nothing if `before` has the same records and the same `metadata["recipe"]`.

    Args:
        pictures: the images of all records by sha256 (hex).
        workers: processes that write the first version. A later version is written by this process
            alone: sending the previous version's data to others costs more than it gains.
        cluster: whose nodes write the first version, in place of `workers`.
    """
    records = {
        record.path: replace(record, split=split, group=group)
        for record, split, group in zip(
            dataset.folder.records, dataset.splits, dataset.groups, strict=True
        )
    }
    same = before is not None and before.metadata["recipe"] == metadata["recipe"]
    old = before.shards if before else ()
    kept = [
        shard
        for shard in (old if same else ())
        if all(records.get(record.path) == record for record in shard.records)
    ]
    done = {record.path for shard in kept for record in shard.records}
    new = [record for path, record in records.items() if path not in done]
    unchanged = same and not new and len(kept) == len(old)
    if unchanged and before.classes == dataset.classes:
        return before.root, "nothing has changed"

    version = f"{int(before.root.name.split('.')[0]) + 1 if before else 1}.0.0"
    folder = base / f"{UNFINISHED}{version}"
    if folder.exists():  # left by a killed run
        shutil.rmtree(folder)
    folder.mkdir()
    shards = _write_shards(
        folder, kept, new, pictures, 1 if before else workers, None if before else cluster
    )
    sizes = defaultdict(list)
    for shard in shards:
        sizes[shard.split].append((len(shard.records), shard.path.stat().st_size))
    write_columns(folder, shards)
    write_index(folder, dataset.classes, dataset.folder.fingerprint, near_duplicate_pairs)
    write_sums(folder, shards)
    metadata = metadata | {"fingerprint": dataset.folder.fingerprint}
    write_info(folder, version, dataset.classes, dict(sizes), metadata)
    _sync(folder / COLUMNS)
    _sync(folder)
    folder.rename(base / version)
    _sync(base)
    summary = f"{len(shards) - len(kept)} shards written, {len(kept)} kept"
    return base / version, summary + _changes(before, records)


def _write_shards(
    folder: Path,
    kept: list[Shard],
    new: list[Record],
    pictures: dict[str, ToStore],
    workers: int,
    cluster: Cluster | None,
) -> list[Shard]:
    """Writes and returns all shards of a version; kept shards come first in each split."""
    shards: list[Shard] = []
    jobs: list[_Job] = []
    for split in sorted({shard.split for shard in kept} | {str(r.split) for r in new}):
        old = [shard for shard in kept if shard.split == split]
        # Sorted by hash, so that the order does not depend on classes when rows are read in order.
        added = sorted((r for r in new if r.split == split), key=lambda r: (r.sha256, r.path))
        parts = list(_parts(added, pictures))
        count = len(old) + len(parts)
        for index, shard in enumerate(old):
            path = folder / shard_name(split, index, count)
            shards.append(replace(shard, path=path))
            for file, name in zip(shard.files, shards[-1].files, strict=True):
                second_name(file, name)
        for index, part in enumerate(parts, len(old)):
            path = folder / shard_name(split, index, count)
            images = [pictures[record.sha256] for record in part]
            stored = tuple(image.stored for image in images)
            shards.append(Shard(path, split, tuple(part), stored, sums=()))
            jobs.append((shards[-1], [image.read for image in images]))
    with contextlib.ExitStack() as stack:
        map_jobs = map if cluster is None else cluster.map
        size = sum(pictures[record.sha256].length for record in new)
        if cluster is None and (count := min(workers, len(jobs), size // _WORTH_PROCESSES)) > 1:
            map_jobs = stack.enter_context(processes(count)).map
        sums = {job[0].path: pair for job, pair in zip(jobs, map_jobs(_write, jobs), strict=True)}
    return [replace(shard, sums=sums.get(shard.path, shard.sums)) for shard in shards]


def _write(job: _Job) -> tuple[str, ...]:
    """Writes a shard; returns its sums."""
    shard, reads = job
    rows = (serialize(record, read()) for record, read in zip(shard.records, reads, strict=True))
    return write_shard(shard, rows)


def _parts(records: Iterable[Record], pictures: dict[str, ToStore]) -> Iterator[list[Record]]:
    """Yields the records of each shard."""
    part, size = [], 0
    for record in records:
        part.append(record)
        size += pictures[record.sha256].length
        if size >= SHARD_BYTES:
            yield part
            part, size = [], 0
    if part:
        yield part


def _changes(before: TfdsFolder | None, records: dict[str, Record]) -> str:
    """The changes since an earlier version, in words."""
    if before is None:
        return ""
    old = {record.path: record for record in before.records}
    both = [(old[path], record) for path, record in records.items() if path in old]
    counts = {
        "added": len(records) - len(both),
        "gone": len(old) - len(both),
        "edited": sum(a.sha256 != b.sha256 for a, b in both),
        "in another split": sum(a.sha256 == b.sha256 and a.split != b.split for a, b in both),
    }
    return "; pictures " + ", ".join(f"{count} {kind}" for kind, count in counts.items() if count)


def _sync(folder: Path) -> None:
    """Waits until the names in a folder are on the disk."""
    if os.name == "nt":  # Windows cannot open a folder
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
