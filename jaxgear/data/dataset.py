"""A set to train on: checked images with their groups, splits and pixels."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Int, UInt8

from jaxgear.data import sources
from jaxgear.data.folder import (
    Column,
    Folder,
    LazyPictures,
    Record,
    counts_of_labels,
    counts_of_splits,
    distinct_groups,
    hashes_of,
    labels_of,
    of_split,
    paths_of,
    pixels,
    stored_pictures,
)
from jaxgear.data.folder.names import ALL, SPLITS
from jaxgear.data.labels import as_named, corrected, read_labels
from jaxgear.data.splits import (
    NEAR_DUPLICATES,
    OnBad,
    missing_classes,
    near_duplicate_groups,
    near_duplicates_across,
    near_duplicates_in_two_classes,
    require_clean,
    split_folder,
)
from jaxgear.machine.memory import free_memory
from jaxgear.notebook import crossed
from jaxgear.text import few


@dataclass(frozen=True)
class Split:
    """The images of one split."""

    # RGB, letterboxed on white; with C = 4 the last channel is the mask.
    images: UInt8[np.ndarray, "N S S C"] | LazyPictures
    labels: Int[np.ndarray, " N"]
    records: Sequence[Record]

    @property
    def names(self) -> Sequence[str]:
        """Paths of the images."""
        return paths_of(self.records)

    @property
    def sha256(self) -> Sequence[str]:
        """The sha256 (hex) of each image's file; of a view, of what it is made of."""
        return hashes_of(self.records)


def subsample(split: Split, count: int) -> Split:
    """At most `count` images of a split, evenly spaced over it."""
    size = len(split.labels)
    rows = np.unique(np.linspace(0, size - 1, min(count, size)).astype(int))
    return Split(split.images[rows], split.labels[rows], tuple(split.records[row] for row in rows))


class PseudoLabel(NamedTuple):
    """What a network calls an image without a label."""

    label: int
    probability: float
    used: bool  # trained on
    gear: bool = True  # False: it looks like a background without gear


@dataclass(frozen=True, repr=False)
class Dataset:
    """A folder with a group and a split for each record, and pixels at `size`.

    A notebook shows the number of images of each class and split.
    """

    folder: Folder
    groups: Sequence[str]  # one per record; near-duplicates share a group
    splits: Sequence[str]  # one per record: train, val, test or left_out
    size: int
    stored: bool = False  # each image is decoded on access, not all at once
    unlabelled: Folder | None = None  # images to learn from without labels (unlabelled.py)
    pseudo_labels: tuple[PseudoLabel, ...] = ()  # one per record of `unlabelled`, once there are

    @property
    def classes(self) -> tuple[str, ...]:
        return self.folder.classes

    def split(self, name: str) -> Split:
        """The train or val split with its pixels (cached, or decoded again).

        For the test split call `test_split`, once there is a model to test.
        """
        if name not in ("train", "val"):
            raise ValueError(f"split {name!r} is not for training or choosing")
        return self._split(name)

    def test_split(self, run: Path) -> Split:
        """The test split, once the run folder `run` holds its finished model (the bundle).

        Raises:
            ValueError: `run` has no bundle yet.
        """
        if not (run / "model" / "bundle.json").is_file():
            raise ValueError(f"{run}: has no finished model yet; the test split needs one")
        return self._split("test")

    def _split(self, name: str) -> Split:
        records = of_split(self.folder.records, self.splits, name)
        folder = replace(self.folder, records=records)
        images = (stored_pictures if self.stored else pixels)(folder, self.size)
        return Split(images, labels_of(records), records)

    def training_records(self) -> Sequence[Record]:
        """The records of the training split."""
        return of_split(self.folder.records, self.splits, "train")

    def training_counts(self) -> tuple[int, ...]:
        """The number of training images of each class, with pseudo-labels that are used."""
        records, splits = self.folder.records, self.splits
        counts = counts_of_labels(records, splits, "train", len(self.classes))
        pseudo = Counter(pseudo.label for pseudo in self.pseudo_labels if pseudo.used)
        return tuple(count + pseudo[label] for label, count in enumerate(counts.tolist()))

    def counts(self) -> dict[str, int]:
        """The number of images in each split."""
        return counts_of_splits(self.folder.records, self.splits)

    def streamed(
        self, always: bool, say: Callable[[str], None] = print, channels: int = 3
    ) -> "Dataset":
        """A `stored` copy if `always`, or if the pixels need over half of the free memory.

        Otherwise the set itself, also if the system does not report free memory. A pixel takes
        `channels` bytes: 4 with masks. `say` gets one line about a `stored` copy.
        """
        images = len(self.folder.records) + len(self.unlabelled.records if self.unlabelled else ())
        size = images * self.size**2 * channels
        free = free_memory()
        if not always and (free is None or size <= free / 2):
            return self
        reason = "--stream" if always else f"{free / 1e9:.1f} GB are free"
        say(f"streaming: decodes {size / 1e9:.1f} GB of pixels batch by batch ({reason})")
        return replace(self, stored=True)

    def __repr__(self) -> str:
        return f"<Dataset, {len(self.splits)} pictures of {len(self.classes)} classes>"

    def _repr_html_(self) -> str:
        names = Column(labels_of(self.folder.records), self.classes.__getitem__)
        return crossed("Pictures", self.classes, ALL, zip(names, self.splits, strict=True))


def open_dataset(
    source: str,
    *,
    size: int,
    seed: int,
    on_bad: OnBad = "stop",
    group_by: str = NEAR_DUPLICATES,
    labels: str = "",
    share: tuple[int, int] = (0, 1),
    say: Callable[[str], None] = print,
) -> Dataset:
    """The set that `--data SOURCE` names, checked and split.

    >>> dataset = jaxgear.open_dataset("drawn:60", size=32, seed=0)
    60 pictures, 12 classes, 60 groups: 35 train, 12 val, 13 test
    >>> dataset.split("train").images.shape
    (35, 32, 32, 3)

    Args:
        source: a folder, table, archive or address (`list_source`), `tfds:NAME@DIR` for a prepared
            TensorFlow Datasets set, or `drawn` or `drawn:COUNT` for the drawn set. Empty: the
            photographs where `get_gear` puts them, else the drawn set.
        labels: a file of corrections that lie over the set, or "".
        share: (K, N) on host K of N hosts: each checks a part of a prepared set's columns.
        say: gets one line for each thing that a user should know.

    Raises:
        DataError: nothing there, refused images (with `on_bad="stop"`), or a class too small.
    """
    if not source:
        source = sources.default_source()
        if source == "drawn":
            say(
                f"no --data and no {sources.PHOTOGRAPHS}: training on {sources.DRAWN} drawn "
                "pictures; `python -m jaxgear get gear` gets the photographs"
            )
    rows = read_labels(Path(labels)) if labels else ()
    folder = sources.read_source(source, size, share=share)
    if labels:
        folder = corrected(folder, Path(labels), rows, size=size, say=say)
    with as_named(source, folder.root):
        return split_dataset(
            folder, size=size, seed=seed, on_bad=on_bad, group_by=group_by, say=say
        )


def split_dataset(
    folder: Folder,
    *,
    size: int,
    seed: int,
    on_bad: OnBad,
    group_by: str = NEAR_DUPLICATES,
    say: Callable[[str], None],
) -> Dataset:
    """`folder` with groups and splits; the second half of `open_dataset`."""
    folder = require_clean(folder, on_bad)
    if folder.tables:
        say(f"pictures and labels are those of {few(folder.tables)}, not of class folders")
    refused = [file.path for file in folder.refused]
    for paths, noun in ((folder.ignored, "hidden or system files"), (refused, "unusable pictures")):
        if paths:
            say(f"{len(paths)} {noun} left out: {few(paths)}")
    groups, splits = split_folder(folder, seed=seed, group_by=group_by)
    for split, names in missing_classes(folder).items():
        if names:
            say(f"warning: no {split} pictures of {few(names)}")
    near = groups if group_by == NEAR_DUPLICATES else near_duplicate_groups(folder.records)
    for where, pairs in (
        ("in two splits", near_duplicates_across(folder.records, near, splits)),
        ("in two classes", near_duplicates_in_two_classes(folder.records, near)),
    ):
        if pairs:
            names = few((f"{a.path} and {b.path}" for a, b in pairs[:3]), total=len(pairs))
            say(f"warning: near-duplicates {where}: {names}; `jaxgear check --sheet` shows them")
    dataset = Dataset(folder, groups, splits, size)
    counts = dataset.counts()
    text = ", ".join(f"{counts[split]} {split}" for split in SPLITS)
    if left_out := counts.get("left_out"):
        text += f", {left_out} left out (near-duplicates of pictures in other splits)"
    classes, number = len(folder.classes), distinct_groups(folder.records, groups)
    say(f"{len(groups)} pictures, {classes} classes, {number} groups: {text}")
    return dataset
