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

from jaxgear.data.folder import Folder, PictureCache, Record, Refused, fingerprint
from jaxgear.data.images import ImageError
from jaxgear.data.tfds.sets import bytes_of, newest, open_set, our_split, sources_of
from jaxgear.data.tfds.shards import FEATURES, Shard
from jaxgear.data.tfds.tables import Place, Tables, read_tables
from jaxgear.errors import DataError, first_line
from jaxgear.text import printable, stable_key


@dataclass(frozen=True)
class TfdsFolder(Folder):
    """A TensorFlow Datasets set as a data folder; `root` is the folder of the set's version."""

    image: str  # name of the image feature
    sources: Mapping[str, Any]  # split -> its rows, with encoded images
    places: Mapping[str, Place] | Tables  # of each path; `Tables` for sets of `prepare`
    metadata: Mapping[str, Any]  # written by `prepare`; empty for other sets

    @property
    def shards(self) -> tuple[Shard, ...]:
        """The shards of a set of `prepare`; none for other sets."""
        return self.places.shards() if isinstance(self.places, Tables) else ()

    def cache_key(self, record: Record) -> str:
        """sha256 (hex) of the stored bytes, not of their source file."""
        place = self._place(record)
        return record.sha256 if place is None else place[2]

    def read(self, record: Record) -> bytes:
        """The stored bytes of one image; `DataError` if damaged. Safe for many threads."""
        if record.path in self.added:
            return super().read(record)
        split, index, stored = self._place(record)
        try:
            rows = self.sources[split]
            # Other sets may be parquet, so TFDS has to parse them.
            ours = isinstance(self.places, Tables)
            data = bytes_of(rows, index, self.image) if ours else rows[index][self.image]
            reason = "changed since it was written"
        except (MemoryError, ImportError):
            raise
        except Exception as error:  # from array_record, protobuf or TFDS
            data, reason = b"", first_line(error)
        if hashlib.sha256(data).hexdigest() != stored:
            raise DataError(
                f"{self._file(split, index)}: damaged ({reason}); remove {self.root.parent} and "
                "prepare it again"
            )
        return data

    def _place(self, record: Record) -> Place | None:
        if isinstance(self.places, Tables):
            return self.places.place(record)
        return self.places.get(record.path)

    def _file(self, split: str, index: int) -> str:
        """The shard that holds a row."""
        info = self.sources[split].dataset_info.splits[split]
        for path, count in zip(info.filepaths, info.shard_lengths, strict=True):
            if index < count:
                return str(path)
            index -= count
        return str(self.root)


def read_tfds(
    source: str,
    *,
    size: int = 128,
    min_classes: int = 2,
    share: tuple[int, int] = (0, 1),
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
        share: (K, N) on host K of N hosts that open the set: what it checks of a set of `prepare`.

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
        places={},
        metadata=dict(builder.info.metadata or {}),
    )
    if "recipe" in folder.metadata:
        return _by_tables(folder, size, share)
    return _by_decoding(folder, label, PictureCache(size, outside=root))


def _by_tables(folder: TfdsFolder, size: int, share: tuple[int, int]) -> TfdsFolder:
    """A set of `prepare`, opened from its tables."""
    stored_at = folder.metadata.get("size")
    if stored_at and size > stored_at:
        raise DataError(
            f"{folder.root}: holds pictures of {stored_at} pixels; take --image-size {stored_at} "
            f"or less, or prepare another set with --size {size}"
        )
    lengths = {
        split: source.dataset_info.splits[split].shard_lengths
        for split, source in folder.sources.items()
    }
    tables = read_tables(folder.root, lengths, folder.classes, share)
    return replace(folder, records=tables.records, fingerprint=tables.fingerprint, places=tables)


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
    records = sorted((record for record, _, _ in good), key=lambda r: stable_key(r.path))
    return replace(
        folder,
        records=tuple(records),
        refused=refused,
        fingerprint=fingerprint(folder.classes, records),
        places={record.path: (*place, sha256) for record, place, sha256 in good},
    )
