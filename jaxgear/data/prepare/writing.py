"""Writes the shards of a version: records and their images in, files out."""

import contextlib
import itertools
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int

from jaxgear.data.folder import Record, Records, digests, paths_of, sortable
from jaxgear.data.folder.names import ALL
from jaxgear.data.images.threads import in_order
from jaxgear.data.prepare.decoding.images import Images
from jaxgear.data.prepare.decoding.staging import processes
from jaxgear.data.tfds.shards import Shard, shard_name, write_shard
from jaxgear.files import second_name

SHARD_BYTES = 128 * 2**20  # of images, about; TFDS recommends 100 to 200 MB
_WORTH_PROCESS = 2**26  # bytes; writing less takes no longer than starting a process
_BYTES, _INTEGERS = 1, 3  # fields of a `tf.train.Feature`

Each = Callable[[Callable[..., Any], Iterable[Any]], Iterable[Any]]  # as `map`


@contextlib.contextmanager
def writers(images: Images, cores: int) -> Iterator[Each]:
    """`map` over processes that write, or over none if there is little to write.

    They start at once, as finding near-duplicates leaves cores idle.
    """
    count = min(cores, int(images.columns["length"].sum(dtype=np.int64)) // _WORTH_PROCESS)
    if count < 2:
        yield map
        return
    with processes(count, import_module, __name__) as pool:
        for _ in range(count):
            pool.submit(int)  # starts a process
        yield partial(in_order, pool, ahead=2 * count)


def write_shards(
    folder: Path, kept: list[Shard], new: Records, images: Images, each: Each
) -> list[Shard]:
    """Writes and returns all shards of a version; kept shards come first in each split."""
    shards: list[Shard] = []
    jobs: list[tuple[Shard, Int[np.ndarray, " n"]]] = []  # with the rows of its images
    rows, size = images.find(sortable(new.sha256)), images.columns["length"]
    present = {shard.split for shard in kept} | set(new.splits.counts())
    for split in sorted(present):
        old = [shard for shard in kept if shard.split == split]
        added = _by_hash(new, np.flatnonzero(new.splits.values == ALL.index(split)))
        parts = _parts(added, size[rows[added]])
        count = len(old) + len(parts)
        for index, shard in enumerate(old):
            path = folder / shard_name(split, index, count)
            shards.append(replace(shard, path=path))
            for file, name in zip(shard.files, shards[-1].files, strict=True):
                second_name(file, name)
        for index, part in enumerate(parts, len(old)):
            path = folder / shard_name(split, index, count)
            stored = digests(images.columns["stored"][rows[part]].view("u1").reshape(-1, 32))
            shards.append(Shard(path, split, new.take(part), stored, sums=()))
            jobs.append((shards[-1], rows[part]))
    alone = (_alone(shard, images.take(own)) for shard, own in jobs)
    sums = each(_write, alone)
    of_path = {job[0].path: own for job, own in zip(jobs, sums, strict=True)}
    return [replace(shard, sums=of_path.get(shard.path, shard.sums)) for shard in shards]


def _by_hash(records: Records, places: Int[np.ndarray, " n"]) -> Int[np.ndarray, " n"]:
    """Places of records sorted by hash, and those of equal bytes by path.

    So the order does not depend on classes when rows are read in order.
    """
    sha256, paths = sortable(records.sha256)[places], paths_of(records)
    order = np.argsort(sha256, kind="stable")
    places, sha256 = places[order], sha256[order]
    ends = np.flatnonzero(np.append(sha256[1:] != sha256[:-1], True)) + 1
    starts = np.append(0, ends[:-1])
    for several in np.flatnonzero(ends - starts > 1).tolist():
        start, end = starts[several], ends[several]
        places[start:end] = sorted(places[start:end].tolist(), key=paths.__getitem__)
    return places


def _parts(
    places: Int[np.ndarray, " n"], sizes: Int[np.ndarray, " n"]
) -> list[Int[np.ndarray, " _"]]:
    """The places of each shard, whose images take so many bytes."""
    ends, before, total = [0], 0, np.cumsum(sizes, dtype=np.int64)
    while ends[-1] < len(places):
        end = min(int(np.searchsorted(total, before + SHARD_BYTES)) + 1, len(places))
        ends.append(end)
        before = int(total[end - 1])
    return [places[start:end] for start, end in itertools.pairwise(ends)]


def _alone(shard: Shard, images: Images) -> tuple[Shard, Images]:
    """A shard and its images for another process, with nothing of other shards."""
    own = shard.records
    table = own.table.take(own.rows, images.descriptor)
    return replace(shard, records=Records(table, np.arange(len(own)))), images


def _write(job: tuple[Shard, Images]) -> tuple[str, ...]:
    """Writes a shard of some images; returns its sums."""
    shard, images = job
    table, rows = shard.records.table, shard.records.rows
    descriptors: list[bytes] = []

    def examples() -> Iterator[bytes]:
        for row, record in enumerate(shard.records):
            descriptor, data = images.read(row)
            descriptors.append(descriptor)
            yield serialize(record, data)

    # The table of the shard is written after its images.
    table = replace(table, describe=descriptors.__getitem__)
    return write_shard(replace(shard, records=Records(table, rows)), examples())


def serialize(record: Record, data: bytes) -> bytes:
    """A record and its image `data` as a `tf.train.Example`, in the wire format of protobuf.

    protobuf writes the same bytes, but its class for them is in TFDS, which takes each process most
    of a second to import.
    """
    features = {
        "group": (_BYTES, record.group.encode()),
        "image": (_BYTES, data),
        "label": (_INTEGERS, _varint(record.label)),
        "path": (_BYTES, record.path.encode()),
        "sha256": (_BYTES, record.sha256.encode()),
    }
    entries = (
        _field(1, _field(1, name.encode()) + _field(2, _field(kind, _field(1, value))))
        for name, (kind, value) in features.items()
    )
    return _field(1, b"".join(entries))


def _field(number: int, value: bytes) -> bytes:
    """A field of bytes or of a message."""
    return _varint(number << 3 | 2) + _varint(len(value)) + value


def _varint(number: int) -> bytes:
    """An unsigned integer, seven bits a byte, the lowest first."""
    if number < 128:
        return bytes((number,))
    return bytes((number & 127 | 128,)) + _varint(number >> 7)
