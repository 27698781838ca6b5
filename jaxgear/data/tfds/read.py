"""Reads any image classification set of TensorFlow Datasets as a `Folder`.

It is read with `as_data_source` from array_record, so TensorFlow need not be installed. Sets of
`python -m jaxgear prepare` are opened from the tables beside their shards, without reading an
image. Other sets are decoded and checked once. data/images decodes all of them, so a run on a
prepared set sees the same numbers as a run on the folder.
"""

import hashlib
import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

from jaxgear.cache import CacheChoice
from jaxgear.data.folder import Folder, PictureCache, Record, Refused, fingerprint
from jaxgear.data.images import ImageError
from jaxgear.data.tfds.sets import bytes_of, newest, open_set, our_split, sources_of
from jaxgear.data.tfds.shards import FEATURES, Shard, read_shards
from jaxgear.errors import DataError, first_line
from jaxgear.text import printable, stable_key


@dataclass(frozen=True)
class TfdsFolder(Folder):
    """A TensorFlow Datasets set as a data folder; `root` is the folder of the set's version."""

    image: str  # name of the image feature
    sources: Mapping[str, Any]  # split -> its rows, with encoded images
    where: Mapping[str, tuple[str, int]]  # path of a record -> split, index in it
    stored: Mapping[str, str]  # path of a record -> sha256 of its stored bytes
    metadata: Mapping[str, Any]  # written by `prepare`; empty for other sets
    shards: tuple[Shard, ...] = ()  # only of sets of `prepare`

    def cache_key(self, record: Record) -> str:
        """sha256 (hex) of the stored bytes, not of their source file."""
        return self.stored.get(record.path, record.sha256)

    def read(self, record: Record) -> bytes:
        """The stored bytes of one image; `DataError` if damaged. Safe for many threads."""
        if record.path in self.added:
            return super().read(record)
        split, index = self.where[record.path]
        try:
            rows = self.sources[split]
            # Other sets may be parquet, so TFDS has to parse them.
            data = bytes_of(rows, index, self.image) if self.shards else rows[index][self.image]
            reason = "changed since it was written"
        except (MemoryError, ImportError):
            raise
        except Exception as error:  # from array_record, protobuf or TFDS
            data, reason = b"", first_line(error)
        if hashlib.sha256(data).hexdigest() != self.stored[record.path]:
            raise DataError(
                f"{self._file(split, index)}: damaged ({reason}); remove {self.root.parent} and "
                "prepare it again"
            )
        return data

    def _file(self, split: str, index: int) -> str:
        """The shard that holds a row."""
        info = self.sources[split].dataset_info.splits[split]
        for path, count in zip(info.filepaths, info.shard_lengths, strict=True):
            if index < count:
                return str(path)
            index -= count
        return str(self.root)


def read_tfds(
    source: str, *, size: int = 128, cache: CacheChoice = "user", min_classes: int = 2
) -> TfdsFolder:
    """A prepared set as a folder.

    A set of `prepare` gives the records (path, sha256, label, split, group) and the fingerprint of
    its source folder; no image is decoded now. Each image of another set is decoded once, checked
    and cached, and its path is `<split>/<index>`. The set's splits train, test and validation are
    kept. If there is only train, the records have no split and are split like those of a folder.

    Args:
        source: "NAME@DIR" or "NAME:CONFIG@DIR". `DIR/NAME[/CONFIG]/VERSION` holds the set; the
            newest version is taken.
        size: letterbox size of the images that will be needed.

    Raises:
        DataError: no such set, not array_record, no image or class label, damaged, fewer than
            `min_classes` classes, or images stored smaller than `size`.
    """
    root = newest(source)
    builder, image, label = open_set(root)
    sources = sources_of(builder, image)
    classes = tuple(builder.info.features[label].names)
    if any(name != printable(name) for name in classes):
        raise DataError(f"{root}: a class name holds control characters")
    if len(classes) < min_classes:
        raise DataError(f"{root}: has {len(classes)} classes, at least {min_classes} needed")
    folder = TfdsFolder(
        root=root,
        classes=classes,
        records=(),
        refused=(),
        ignored=tuple(
            f"split {split}" for split in sorted(builder.info.splits.keys() - sources.keys())
        ),
        fingerprint="",
        image=image,
        sources=sources,
        where={},
        stored={},
        metadata=dict(builder.info.metadata or {}),
    )
    if "recipe" in folder.metadata:
        return _by_tables(folder, size)
    return _by_decoding(folder, label, PictureCache(cache, size, outside=root))


def _by_tables(folder: TfdsFolder, size: int) -> TfdsFolder:
    """A set of `prepare`, opened from its tables."""
    stored_at = folder.metadata.get("size")
    if stored_at and size > stored_at:
        raise DataError(
            f"{folder.root}: holds pictures of {stored_at} pixels; take --image-size {stored_at} "
            f"or less, or prepare another set with --size {size}"
        )
    counts = {
        split: source.dataset_info.splits[split].num_shards
        for split, source in folder.sources.items()
    }
    shards = read_shards(folder.root, counts, len(folder.classes))
    where, stored, records = {}, {}, []
    rows = dict.fromkeys(counts, 0)  # split -> number of rows so far
    for shard in shards:
        for index, record in enumerate(shard.records, rows[shard.split]):
            where[record.path] = shard.split, index
        rows[shard.split] += len(shard.records)
        stored.update((r.path, key) for r, key in zip(shard.records, shard.stored, strict=True))
        records += shard.records
    if len(where) != len(records) or any(rows[s] != len(folder.sources[s]) for s in rows):
        raise DataError(
            f"{folder.root}: its tables do not match its shards; remove it and prepare it again"
        )
    return _with_records(replace(folder, shards=tuple(shards)), records, where, stored)


def _by_decoding(folder: TfdsFolder, label: str, store: PictureCache) -> TfdsFolder:
    """Any other set, or a set of `gear_builder.Gear`; decodes every image."""
    ours = all(set(rows.dataset_info.features) == FEATURES for rows in folder.sources.values())
    has_splits = {our_split(split) for split in folder.sources} != {"train"}

    def check(place: tuple[str, int]) -> tuple[Record, tuple[str, int], str] | Refused:
        split, index = place
        row = folder.sources[split][index]
        path = row["path"].decode() if ours else f"{split}/{index:07d}"
        if row[label] < 0:
            return Refused(path, "no label")
        try:
            sha256, entry = store.decode(row[folder.image], path)
        except ImageError as error:
            return Refused(path, error.reason)
        record = Record(
            path=path,
            sha256=row["sha256"].decode() if ours else sha256,
            label=int(row[label]),
            split=our_split(split) if has_splits else None,
            height=entry.height,
            width=entry.width,
            descriptor=entry.descriptor,
            group=row["group"].decode() if ours else None,
        )
        return record, place, sha256

    try:
        places = [
            (split, index)
            for split, source in folder.sources.items()
            for index in range(len(source))
        ]
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            checked = list(pool.map(check, places))
    except (MemoryError, ImportError):
        raise
    except Exception as error:
        raise DataError(f"{folder.root}: damaged TFDS set ({first_line(error)})") from error
    good = [result for result in checked if not isinstance(result, Refused)]
    refused = tuple(result for result in checked if isinstance(result, Refused))
    return _with_records(
        replace(folder, refused=refused),
        [record for record, _, _ in good],
        {record.path: place for record, place, _ in good},
        {record.path: sha256 for record, _, sha256 in good},
    )


def _with_records(
    folder: TfdsFolder,
    records: list[Record],
    where: dict[str, tuple[str, int]],
    stored: dict[str, str],
) -> TfdsFolder:
    records = sorted(records, key=lambda record: stable_key(record.path))
    return replace(
        folder,
        records=tuple(records),
        fingerprint=fingerprint(folder.classes, records),
        where=where,
        stored=stored,
    )
