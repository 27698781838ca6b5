"""Writes `splits.json`: the class, group and split of every image of a run's set.

Up to `LISTED` images are rows of the JSON. More are columns (data/tfds/columns.py) in a folder
beside it, whose name, number of images and sums the JSON has. A prepared set has most of these
columns already: they get a second name, and only what differs is written.
"""

import hashlib
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from jaxgear.data.dataset import Dataset
from jaxgear.data.folder import (
    Records,
    group_numbers,
    grouped,
    rows_of_split,
    split_numbers,
    taken,
)
from jaxgear.data.folder.names import ALL, LEFT_OUT
from jaxgear.data.tfds.columns import column_file, read_column, write_columns
from jaxgear.data.tfds.shards import COLUMNS, Shard, text_of
from jaxgear.data.tfds.tables import sums_of
from jaxgear.files import second_name, write_json

LISTED = 2**20
"""Images that are listed in JSON: a million take 200 MB, 15 s to write and 5 s to read. All sets
that people look at picture by picture are smaller."""

KEPT = ("order", "text", "starts", "sha256", "label", "split", "group", "names")  # columns


def write_splits(run: Path, dataset: Dataset) -> None:
    """Writes `splits.json` in a run folder, and the columns of a large set; replaces older ones."""
    before = {int(folder.name[7:]): folder for folder in run.glob("splits-[0-9]*")}
    if len(dataset.folder.records) <= LISTED:
        write_json(run / "splits.json", describe(dataset))
    else:
        place = run / f"splits-{1 + max(before, default=0)}"
        with tempfile.TemporaryDirectory(prefix=".new-", dir=run) as new:
            sums = _write_columns(Path(new), dataset)
            (Path(new) / COLUMNS).rename(place)
        pictures = {"number": len(dataset.folder.records), **dataset.counts()}
        pictures |= {"columns": place.name, "sha256": sums}
        write_json(run / "splits.json", describe(dataset, pictures))
    for folder in before.values():
        shutil.rmtree(folder)


def describe(dataset: Dataset, pictures: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """The content of `splits.json`. `pictures`: what stands for the images; None: a row each."""
    folder = dataset.folder
    if pictures is None:
        rows = zip(folder.records, dataset.groups, dataset.splits, strict=True)
        pictures = [
            {
                "path": record.path,
                "sha256": record.sha256,
                "class": folder.classes[record.label],
                "group": group,
                "side": split,
            }
            for record, group, split in rows
        ]
    return {
        "fingerprint": folder.fingerprint,
        "classes": list(folder.classes),
        "pictures": pictures,
        **({"corrections": list(folder.changes)} if folder.changes else {}),
        **({"unlabelled": describe_unlabelled(dataset)} if dataset.unlabelled else {}),
    }


def describe_unlabelled(dataset: Dataset) -> list[dict[str, Any]]:
    """The images without labels, each with its pseudo-label."""
    return [
        {"path": record.path, "sha256": record.sha256}
        | {"pseudo_label": dataset.classes[label], "probability": probability, "used": used}
        | {"gear": gear}
        for record, (label, probability, used, gear) in zip(
            dataset.unlabelled.records, dataset.pseudo_labels, strict=True
        )
    ]


def _write_columns(new: Path, dataset: Dataset) -> dict[str, str]:
    """Makes the columns of a set in `new`/columns; returns the sha256 (hex) of each."""
    records, root = dataset.folder.records, dataset.folder.root
    if isinstance(records, Records) and (root / COLUMNS).is_dir():
        return _beside(root, new, dataset, records)
    splits = (split for split in sorted(ALL) if dataset.counts().get(split))
    write_columns(new, (_shard(dataset, split) for split in splits))
    for path in (new / COLUMNS).iterdir():
        if path.stem not in KEPT:
            path.unlink()
    return {name: _sum(column_file(new, name)) for name in KEPT}


def _shard(dataset: Dataset, split: str) -> Shard:
    """The images of a split as `write_columns` takes them."""
    rows = rows_of_split(dataset.splits, split)
    records = Records.of(taken(dataset.folder.records, rows))
    records = records.with_columns(group=grouped(dataset.groups).take(rows))
    return Shard(Path(split), split, records, records.sha256, ())


def _beside(root: Path, new: Path, dataset: Dataset, records: Records) -> dict[str, str]:
    """`_write_columns` for a prepared set: hard links to its columns that still match."""
    table, own = records.table, {}
    if len(records) < len(table.label):
        own["order"] = records.rows
    if table.before:
        own |= {"order": records.rows, "text": table.text, "starts": table.starts}
        own["sha256"] = table.sha256.values.view(np.uint8).reshape(-1, 32)
    if not np.array_equal(table.label, read_column(column_file(root, "label"))):
        own["label"] = table.label
    split = np.full(len(table.label), ALL.index(LEFT_OUT), np.uint8)
    split[records.rows] = split_numbers(dataset.splits)
    if (split != table.split.values).any() or table.before:
        own["split"] = split
    if dataset.groups is not records.groups:
        names: dict[str, int] = {}
        own["group"] = group_numbers(table.group, names)
        own["group"][records.rows] = group_numbers(grouped(dataset.groups), names)
        own["names"] = text_of(["", *names, ""])
    (new / COLUMNS).mkdir()
    theirs, sums = sums_of(root), {}
    for name in KEPT:
        path = column_file(new, name)
        if name in own:
            np.save(path, own[name])
            sums[name] = _sum(path)
        else:
            second_name(column_file(root, name), path)
            sums[name] = theirs[path.relative_to(new).as_posix()]
    return sums


def _sum(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
