"""Versions of a prepared set: `OUT/gear/1.0.0`, `2.0.0` and so on, which appear whole.

A shard in which everything still holds is in the next version too, as a second name of the same
file; what is new or has changed goes to new shards. Older versions stay, for runs that read them.
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

from jaxgear.data.dataset import Dataset
from jaxgear.data.folder import Record
from jaxgear.data.prepare.gear_builder import serialize, write_info
from jaxgear.data.prepare.staging import processes
from jaxgear.data.prepare.workshop import ToStore
from jaxgear.data.splits import NEAR_DUPLICATES
from jaxgear.data.tfds.read import TfdsFolder, read_tfds
from jaxgear.data.tfds.sets import newest_version
from jaxgear.data.tfds.shards import (
    NAME,
    UNFINISHED,
    Shard,
    shard_name,
    table_of,
    write_shard,
    write_sums,
)
from jaxgear.errors import DataError, UsageError

SHARD_BYTES = 128 * 2**20  # of pictures, about; TFDS recommends 100 to 200 MB
_WORTH_PROCESSES = 2**28  # bytes a process; less is written before it has imported TFDS
_Job = tuple[Shard, list[Callable[[], bytes]]]  # what to write, and how its pictures are had


def last(base: Path, chosen: dict[str, Any]) -> TfdsFolder | None:
    """The newest version, if there is one.

    Args:
        chosen: size, seed and group_by.

    Raises:
        DataError: it is not by `prepare`, or damaged.
        UsageError: it was prepared with other choices.
    """
    if newest_version(base) is None:
        return None
    before = read_tfds(f"{NAME}@{base.parent}", size=1)
    if "recipe" not in before.metadata:
        raise DataError(f"{before.root}: not by `jaxgear prepare`; choose another place")
    for name, wanted in chosen.items():
        # Sets of before had no other grouping.
        if (has := before.metadata.get(name, NEAR_DUPLICATES)) != wanted:
            name = name.replace("_", "-")
            flag = f"--{name} {has}" if has is not None else f"no --{name}"
            raise UsageError(
                f"{base}: was prepared with {flag}; say so again, or choose another place"
            )
    return before


def pictures_of(before: TfdsFolder) -> dict[str, ToStore]:
    """Its pictures, by sha256 (hex) of the files that they came from."""
    found = {}
    for shard in before.shards:
        length = shard.path.stat().st_size // len(shard.records)
        for record, stored in zip(shard.records, shard.stored, strict=True):
            read = partial(before.read, record)
            size = record.height, record.width
            found[record.sha256] = ToStore(*size, record.descriptor, stored, length, read)
    return found


def write_version(
    base: Path,
    before: TfdsFolder | None,
    dataset: Dataset,
    pictures: dict[str, ToStore],
    metadata: dict[str, Any],
    workers: int = 1,
) -> tuple[Path, str]:
    """Writes the version of `base` after `before`; its folder, and what was done in words.

    Nothing is written where `before` has the same records, all of the same `metadata["recipe"]`.

    Args:
        pictures: by sha256 (hex), those of all records.
        workers: processes that write the first version. What a later one takes from the one before
            is not worth sending to others.
    """
    records = {
        record.path: replace(record, split=split, group=group)
        for record, split, group in zip(
            dataset.folder.records, dataset.splits, dataset.groups, strict=True
        )
    }
    same = before is not None and before.metadata["recipe"] == metadata["recipe"]
    kept = [
        shard
        for shard in (before.shards if same else ())
        if all(records.get(record.path) == record for record in shard.records)
    ]
    done = {record.path for shard in kept for record in shard.records}
    new = [record for path, record in records.items() if path not in done]
    unchanged = same and not new and len(kept) == len(before.shards)
    if unchanged and before.classes == dataset.classes:
        return before.root, "nothing has changed"

    version = f"{int(before.root.name.split('.')[0]) + 1 if before else 1}.0.0"
    folder = base / f"{UNFINISHED}{version}"
    if folder.exists():  # of a run that was killed
        shutil.rmtree(folder)
    folder.mkdir()
    shards = _write_shards(folder, kept, new, pictures, 1 if before else workers)
    write_sums(folder, shards)
    sizes = defaultdict(list)
    for shard in shards:
        sizes[shard.split].append((len(shard.records), shard.path.stat().st_size))
    metadata = metadata | {"fingerprint": dataset.folder.fingerprint}
    write_info(folder, version, dataset.classes, dict(sizes), metadata)
    _sync(folder)
    folder.rename(base / version)
    _sync(base)
    words = f"{len(shards) - len(kept)} shards written, {len(kept)} kept"
    return base / version, words + _changes(before, records)


def _write_shards(
    folder: Path, kept: list[Shard], new: list[Record], pictures: dict[str, ToStore], workers: int
) -> list[Shard]:
    """All shards of a version, those that are kept first in each split."""
    shards: list[Shard] = []
    jobs: list[_Job] = []
    for split in sorted({shard.split for shard in kept} | {str(r.split) for r in new}):
        old = [shard for shard in kept if shard.split == split]
        # By hash: in an order that has nothing to do with classes, for those who read in order.
        own = sorted((r for r in new if r.split == split), key=lambda r: (r.sha256, r.path))
        parts = list(_parts(own, pictures))
        count = len(old) + len(parts)
        for index, shard in enumerate(old):
            path = folder / shard_name(split, index, count)
            _second_name(shard.path, path)
            _second_name(table_of(shard.path), table_of(path))
            shards.append(replace(shard, path=path))
        for index, part in enumerate(parts, len(old)):
            path = folder / shard_name(split, index, count)
            found = [pictures[record.sha256] for record in part]
            stored = tuple(picture.stored for picture in found)
            shards.append(Shard(path, split, tuple(part), stored, sums=("", "")))
            jobs.append((shards[-1], [picture.read for picture in found]))
    with contextlib.ExitStack() as stack:
        each = map
        size = sum(pictures[record.sha256].length for record in new)
        if (count := min(workers, len(jobs), size // _WORTH_PROCESSES)) > 1:
            each = stack.enter_context(processes(count)).map
        sums = {job[0].path: found for job, found in zip(jobs, each(_write, jobs), strict=True)}
    return [replace(shard, sums=sums.get(shard.path, shard.sums)) for shard in shards]


def _write(job: _Job) -> tuple[str, str]:
    """Writes a shard; its sums."""
    shard, reads = job
    rows = (serialize(record, read()) for record, read in zip(shard.records, reads, strict=True))
    return write_shard(shard, rows)


def _parts(records: Iterable[Record], pictures: dict[str, ToStore]) -> Iterator[list[Record]]:
    """Records of one shard each."""
    part, size = [], 0
    for record in records:
        part.append(record)
        size += pictures[record.sha256].length
        if size >= SHARD_BYTES:
            yield part
            part, size = [], 0
    if part:
        yield part


def _second_name(path: Path, name: Path) -> None:
    try:
        name.hardlink_to(path)
    except OSError:  # a file system without links
        shutil.copyfile(path, name)


def _changes(before: TfdsFolder | None, records: dict[str, Record]) -> str:
    """What has become of the pictures of an earlier version."""
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
    return "; pictures " + ", ".join(f"{count} {what}" for what, count in counts.items() if count)


def _sync(folder: Path) -> None:
    """Waits until the files' and folders' names are on the disk."""
    if os.name == "nt":  # a folder cannot be opened there
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
