"""Checked and split pictures as a TensorFlow Datasets set, and any such set as a `Folder`.

Written as array_record and read with `as_data_source`, so TensorFlow need not be installed.
Pictures are stored such that the decoders of others show what `images.load_rgb` shows (TFDS keeps
alpha and CMYK channels and ignores EXIF orientation), and are decoded by `images.load_rgb` here, so
a run on the set sees the same numbers as a run on the folder.
"""

import contextlib
import hashlib
import io
import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tensorflow_datasets as tfds

from jaxgear.data import images
from jaxgear.data.cache import CacheChoice, PictureCache
from jaxgear.data.folder import Folder, Record, fingerprint
from jaxgear.data.walk import SIDES, Refused, printable, stable_key
from jaxgear.errors import DataError
from jaxgear.files import from_json, read_regular

_OURS = {"image", "label", "path", "sha256", "group"}
_KNOWN = "tensorflow_datasets.core.features."
_SPLITS = {**SIDES, "left_out": "left_out"}


class Gear(tfds.core.GeneratorBasedBuilder):
    """Writes a folder whose records have sides: the splits train, val, test and left_out."""

    VERSION = tfds.core.Version("1.0.0")
    name = "gear"

    def __init__(self, folder: Folder, sides: Sequence[str], groups: Sequence[str], out: str):
        self._folder, self._sides, self._groups = folder, sides, groups
        super().__init__(data_dir=out, file_format="array_record")

    def _info(self) -> tfds.core.DatasetInfo:
        features = {
            "image": tfds.features.Image(shape=(None, None, 3)),
            "label": tfds.features.ClassLabel(names=list(self._folder.classes)),
            "path": tfds.features.Text(),
            "sha256": tfds.features.Text(),  # of the file that the picture came from
            "group": tfds.features.Text(),  # near-duplicates share one
        }
        return tfds.core.DatasetInfo(
            builder=self,
            description="Photographs checked, grouped by likeness and split by jaxgear.",
            features=tfds.features.FeaturesDict(features),
            metadata=tfds.core.MetadataDict(content=self.content),
        )

    @property
    def content(self) -> str:
        """sha256 (hex) of what the set holds: its pictures, sides and groups."""
        rows = [self._folder.fingerprint, *self._sides, *self._groups]
        return hashlib.sha256("\n".join(rows).encode()).hexdigest()

    def _split_generators(self, dl_manager: Any) -> dict[str, Iterator]:
        return {side: self._generate_examples(side) for side in sorted(set(self._sides))}

    def _generate_examples(self, side: str) -> Iterator[tuple[str, dict[str, Any]]]:
        rows = zip(self._folder.records, self._sides, self._groups, strict=True)
        for record, own, group in rows:
            if own == side:
                data = images.portable(self._folder.read(record), record.path)
                yield (
                    record.path,
                    {
                        "image": data,
                        "label": record.label,
                        "path": record.path,
                        "sha256": record.sha256,
                        "group": group,
                    },
                )


def prepare(
    folder: Folder, sides: Sequence[str], groups: Sequence[str], out: str | os.PathLike[str]
) -> Gear:
    """Writes `out/gear/1.0.0`; read it back with `read_tfds(f"gear@{out}")`.

    Args:
        folder: checked pictures.
        sides: of `assign_sides`; groups: of `near_duplicate_groups`; one for each record.

    Raises:
        DataError: `out` holds another set already, or cannot be written.
    """
    tfds.disable_progress_bar()
    try:
        builder = Gear(folder, sides, groups, os.fspath(out))
        with contextlib.redirect_stdout(io.StringIO()):  # it prints in bold, terminal or not
            builder.download_and_prepare()
    except OSError as error:
        raise DataError(f"{out}: cannot be written: {error.strerror or error}") from None
    if (builder.info.metadata or {}).get("content") != builder.content:
        raise DataError(f"{builder.data_dir}: holds another set; remove it or choose another place")
    return builder


@dataclass(frozen=True)
class TfdsFolder(Folder):
    """A TensorFlow Datasets set in the shape of a data folder; `root` is the set's own folder."""

    image: str  # name of the image feature
    where: Mapping[str, tuple[Any, int]]  # path of a record -> data source, index in it
    stored: Mapping[str, str]  # path of a record -> sha256 of the bytes stored for it

    def cache_key(self, record: Record) -> str:
        """sha256 (hex) of the stored bytes: not of the file that they may have been made from."""
        return self.stored[record.path]

    def read(self, record: Record) -> bytes:
        """One picture as it is stored."""
        source, index = self.where[record.path]
        return source[index][self.image]


def read_tfds(
    source: str, *, size: int = 128, cache: CacheChoice = "user", min_classes: int = 2
) -> TfdsFolder:
    """Reads a prepared set like a folder: each picture decoded once, checked and cached.

    Sets by `prepare` give the records (path, sha256, label, side) and the fingerprint of the folder
    that they were made from. Of other image classification sets, the splits train, test and
    validation are sides; if there is only train, the records have none and are split like a
    folder's. Their paths are `<split>/<index>`.

    Args:
        source: "NAME@DIR" or "NAME:CONFIG@DIR", where `DIR/NAME[/CONFIG]/VERSION` holds the set;
            the newest version is taken.

    Raises:
        DataError: no such set, not array_record, no image or class label, or fewer than
            `min_classes` classes.
    """
    root = _newest(source)
    builder, image, label = _open(root)
    rows = _sources(builder, image)
    ours = set(builder.info.features) == _OURS
    sided = {_SPLITS[split] for split in rows} != {"train"}
    store = PictureCache(cache, size, outside=root)

    def check(place: tuple[str, int]) -> tuple[Record, tuple[Any, int], str] | Refused:
        split, index = place
        row = rows[split][index]
        path = row["path"].decode() if ours else f"{split}/{index:07d}"
        if row[label] < 0:
            return Refused(path, "no label")
        try:
            sha256, entry = store.decode(row[image], path)
        except images.ImageError as error:
            return Refused(path, error.reason)
        record = Record(
            path=path,
            sha256=row["sha256"].decode() if ours else sha256,
            label=int(row[label]),
            side=_SPLITS[split] if sided else None,
            height=entry.height,
            width=entry.width,
            look=entry.look,
        )
        return record, (rows[split], index), sha256

    try:
        places = [(split, index) for split in rows for index in range(len(rows[split]))]
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            checked = list(pool.map(check, places))
    except Exception as error:
        raise DataError(f"{root}: damaged TFDS set ({_first_line(error)})") from error
    good = [result for result in checked if not isinstance(result, Refused)]
    good.sort(key=lambda result: stable_key(result[0].path))
    classes = tuple(builder.info.features[label].names)
    if any(name != printable(name) for name in classes):
        raise DataError(f"{root}: a class with control characters in its name")
    if len(classes) < min_classes:
        raise DataError(f"{root}: has {len(classes)} classes, at least {min_classes} needed")
    records = tuple(record for record, _, _ in good)
    return TfdsFolder(
        root=root,
        classes=classes,
        records=records,
        refused=tuple(result for result in checked if isinstance(result, Refused)),
        ignored=tuple(
            f"split {split}" for split in sorted(builder.info.splits.keys() - rows.keys())
        ),
        fingerprint=fingerprint(classes, records),
        image=image,
        where={record.path: place for record, place, _ in good},
        stored={record.path: sha256 for record, _, sha256 in good},
    )


def _newest(source: str) -> Path:
    """The folder of the newest version of the set that "NAME[:CONFIG]@DIR" names."""
    name, at, folder = source.partition("@")
    if not (name and at and folder):
        raise DataError(f"tfds:{source}: expected tfds:NAME@DIR or tfds:NAME:CONFIG@DIR")
    base = Path(folder).joinpath(*name.split(":", 1))
    found = {path.parent for path in base.glob("*/dataset_info.json")}
    versions = [path for path in found if tfds.core.Version.is_valid(path.name)]
    if not versions:
        configs = sorted({path.parts[-3] for path in base.glob("*/*/dataset_info.json")})
        hint = f"; it has the configs {', '.join(configs)}: tfds:NAME:CONFIG@DIR" if configs else ""
        raise DataError(f"{base}: no prepared TFDS set there{hint}")
    return max(versions, key=lambda path: tfds.core.Version(path.name))


def _open(root: Path) -> tuple[tfds.core.DatasetBuilder, str, str]:
    """A prepared set, and the names of its image and label features."""
    _check_features(root)
    try:
        builder = tfds.builder_from_directory(root)
    except Exception as error:  # TFDS and protobuf each have their own kinds
        raise DataError(f"{root}: not a readable TFDS set ({_first_line(error)})") from error
    image = _feature(builder, "image", tfds.features.Image)
    return builder, image, _feature(builder, "label", tfds.features.ClassLabel)


def _check_features(root: Path) -> None:
    """Refuses a set that names features which are not TFDS' own: it would import and so run them.

    Any module in the working directory can be named, so also one that lies beside the set.
    """
    path = root / "features.json"
    if not path.is_file():
        return  # not a set, as `builder_from_directory` says
    try:
        waiting = [from_json(read_regular(path, 2**24))]
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: not readable ({_first_line(error)})") from error
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            for key in ("pythonClassName", "type"):
                name = value.get(key, "")
                if isinstance(name, str) and "." in name and not name.startswith(_KNOWN):
                    raise DataError(f"{path}: refused, it would import {printable(name)[:80]!r}")
            waiting += value.values()
        elif isinstance(value, list):
            waiting += value


def _sources(builder: tfds.core.DatasetBuilder, image: str) -> dict[str, Any]:
    """The rows of each split that is a side, with pictures left encoded."""
    decoders = {image: tfds.decode.SkipDecoding()}
    try:
        return {
            split: builder.as_data_source(split, decoders=decoders)
            for split in sorted(builder.info.splits)
            if split in _SPLITS
        }
    except NotImplementedError:
        raise DataError(
            f"{builder.data_dir}: stored as {builder.info.file_format.value}, which needs "
            'TensorFlow; prepare it again with file_format="array_record"'
        ) from None


def _feature(builder: tfds.core.DatasetBuilder, usual: str, kind: type) -> str:
    """The name of the set's feature of a kind: the usual name, or the only one of that kind."""
    names = [name for name, feature in builder.info.features.items() if isinstance(feature, kind)]
    if usual in names:
        return usual
    if len(names) != 1:
        raise DataError(
            f"{builder.data_dir}: not an image classification set: {len(names)} features of kind "
            f"{kind.__name__}, none called {usual}"
        )
    return names[0]


def _first_line(error: Exception) -> str:
    return (str(error) or type(error).__name__).strip().splitlines()[0]
