"""A set to train on: checked pictures, their groups and splits, and their pixels."""

import contextlib
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int, UInt8

from jaxgear.cache import user_cache
from jaxgear.data.folder import (
    Folder,
    LazyPictures,
    OnBad,
    Record,
    pixels,
    read_folder,
    require_clean,
    stored_pictures,
)
from jaxgear.data.folder.names import SPLITS
from jaxgear.data.splits import (
    NEAR_DUPLICATES,
    missing_classes,
    near_duplicate_groups,
    near_duplicates_across,
    near_duplicates_in_two_classes,
    split_folder,
)
from jaxgear.data.synthetic import CLASSES, write_drawn
from jaxgear.errors import DataError
from jaxgear.machine.memory import free_memory
from jaxgear.text import printable

PHOTOGRAPHS = Path("data/gear_images")  # where scripts/get_gear.py puts them
DRAWN = 600  # pictures of the drawn set, when there are no photographs: under three minutes


@dataclass(frozen=True)
class Split:
    """The pictures of one split."""

    # RGB, letterboxed on white; C = 4: and the mask. LazyPictures: made when asked for.
    images: UInt8[np.ndarray, "N S S C"] | LazyPictures
    labels: Int[np.ndarray, " N"]
    records: tuple[Record, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """Paths of the pictures."""
        return tuple(record.path for record in self.records)


def some(split: Split, count: int) -> Split:
    """At most `count` pictures of a split, from all over it."""
    rows = np.unique(
        np.linspace(0, len(split.labels) - 1, min(count, len(split.labels))).astype(int)
    )
    return Split(split.images[rows], split.labels[rows], tuple(split.records[row] for row in rows))


@dataclass(frozen=True)
class Dataset:
    """A folder whose pictures were grouped and given splits; pixels at `size`."""

    folder: Folder
    groups: tuple[str, ...]  # of each record: near-duplicates share one
    splits: tuple[str, ...]  # of each record: train, val, test or left_out
    size: int
    stored: bool = False  # pixels stay where they are until they are asked for

    @property
    def classes(self) -> tuple[str, ...]:
        return self.folder.classes

    def split(self, name: str) -> Split:
        """The records of one split, with their pixels (from the cache, or decoded again).

        Not of the test split: that is `test_split`, when there is a model to test.
        """
        if name not in ("train", "val"):
            raise ValueError(f"split {name!r} is not for training or choosing")
        return self._split(name)

    def test_split(self, run: Path) -> Split:
        """The test split, once the model in the run folder `run` is fixed: its bundle is written.

        Raises:
            ValueError: there is no bundle in `run` yet.
        """
        if not (run / "model" / "bundle.json").is_file():
            raise ValueError(f"{run}: test pictures are for a finished model, and there is none")
        return self._split("test")

    def _split(self, name: str) -> Split:
        records = tuple(
            r for r, split in zip(self.folder.records, self.splits, strict=True) if split == name
        )
        labels = np.array([record.label for record in records], np.int32)
        folder = replace(self.folder, records=records)
        images = (stored_pictures if self.stored else pixels)(folder, self.size)
        return Split(images, labels, records)

    def training_counts(self) -> tuple[int, ...]:
        """Training pictures of each class."""
        counts = [0] * len(self.classes)
        for record, split in zip(self.folder.records, self.splits, strict=True):
            counts[record.label] += split == "train"
        return tuple(counts)

    def counts(self) -> dict[str, int]:
        """Pictures in each split."""
        return dict(Counter(self.splits))

    def streamed(
        self, always: bool, say: Callable[[str], None] = print, channels: int = 3
    ) -> "Dataset":
        """Itself, or `stored` where it would take more than half of the memory that is free (not
        where the system does not say how much that is).

        A pixel is `channels` bytes: 4 with masks. `say` gets one line if it is that, or `always`
        was asked for.
        """
        size = len(self.folder.records) * self.size**2 * channels
        free = free_memory()
        if not always and (free is None or size <= free / 2):
            return self
        why = "--stream" if always else f"{free / 1e9:.1f} GB are free"
        say(f"streaming: {size / 1e9:.1f} GB of pixels are decoded when their turn comes ({why})")
        return replace(self, stored=True)

    def describe(self) -> dict[str, Any]:
        """The content of a run's `splits.json`: every picture, its group and its split."""
        folder = self.folder
        return {
            "fingerprint": folder.fingerprint,
            "classes": list(folder.classes),
            "pictures": [
                {
                    "path": record.path,
                    "sha256": record.sha256,
                    "class": folder.classes[record.label],
                    "group": group,
                    "side": split,
                }
                for record, group, split in zip(
                    folder.records, self.groups, self.splits, strict=True
                )
            ],
        }


def keep_trained_out(recorded: dict[str, Any], dataset: Dataset) -> Dataset:
    """`dataset`, of which nothing that `splits.json` has as trained on is validated or tested on.

    An edited picture is another one to the split, and may have come to another split.
    """
    trained = {row["path"] for row in recorded["pictures"] if row["side"] == "train"}
    splits = tuple(
        "left_out" if split in ("val", "test") and record.path in trained else split
        for record, split in zip(dataset.folder.records, dataset.splits, strict=True)
    )
    return replace(dataset, splits=splits)


def changed_pictures(recorded: dict[str, Any], dataset: Dataset) -> list[str]:
    """What `dataset` has different from the set that `splits.json` describes, a line a picture."""
    if recorded["fingerprint"] == dataset.folder.fingerprint:
        return []
    before = {row["path"]: (row["sha256"], row["class"]) for row in recorded["pictures"]}
    now = {r.path: (r.sha256, dataset.classes[r.label]) for r in dataset.folder.records}
    return [
        f"{path} ({'added' if path not in before else 'removed' if path not in now else 'edited'})"
        for path in sorted(before.keys() | now.keys())
        if before.get(path) != now.get(path)
    ]


def open_dataset(
    source: str,
    *,
    size: int,
    seed: int,
    on_bad: OnBad = "stop",
    group_by: str = NEAR_DUPLICATES,
    say: Callable[[str], None] = print,
) -> Dataset:
    """The set that `--data SOURCE` names, checked and split.

    `source` is a folder, `tfds:NAME@DIR` for a prepared TensorFlow Datasets set, `drawn` or
    `drawn:COUNT` for the drawn set, or empty: then the photographs where `get_gear` puts them, else
    the drawn set. `say` gets one line for everything a user should know.

    Raises:
        DataError: nothing there, refused pictures (with `on_bad="stop"`), or a class too small.
    """
    if not source:
        source = default_source()
        if source == "drawn":
            say(
                f"no --data and no {PHOTOGRAPHS}: training on {DRAWN} drawn pictures; "
                "`python -m scripts.get_gear` gets the photographs"
            )
    folder = read_source(source, size)
    return split_dataset(folder, size=size, seed=seed, on_bad=on_bad, group_by=group_by, say=say)


def split_dataset(
    folder: Folder,
    *,
    size: int,
    seed: int,
    on_bad: OnBad,
    group_by: str = NEAR_DUPLICATES,
    say: Callable[[str], None],
) -> Dataset:
    """Groups and splits of a folder that was read; the second half of `open_dataset`."""
    folder = require_clean(folder, on_bad)
    for name, what in (("ignored", "hidden or system files"), ("refused", "unusable pictures")):
        if found := getattr(folder, name):
            say(f"{len(found)} {what} left out: {few(str(getattr(f, 'path', f)) for f in found)}")
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
            named = few(f"{a.path} and {b.path}" for a, b in pairs)
            say(f"warning: near-duplicates {where}: {named}; `jaxgear check --sheet` shows them")
    dataset = Dataset(folder, tuple(groups), tuple(splits), size)
    counts = dataset.counts()
    left_out = counts.get("left_out", 0)
    say(
        f"{len(groups)} pictures, {len(folder.classes)} classes, {len(set(groups))} groups: "
        + ", ".join(f"{counts[split]} {split}" for split in SPLITS)
        + (f", {left_out} left out (near-duplicates of another split's)" if left_out else "")
    )
    return dataset


def read_source(source: str, size: int) -> Folder:
    """The pictures that `--data SOURCE` names (not empty), checked but not yet refused or split."""
    if source.startswith("tfds:"):
        # Imported when asked for: tensorflow-datasets takes most of a second.
        from jaxgear.data.tfds.read import read_tfds

        return read_tfds(source.removeprefix("tfds:"), size=size)
    if source.split(":")[0] == "drawn":
        # Its one hidden file is our own: nothing to tell people of.
        return replace(read_folder(drawn_set(source), size=size), ignored=())
    return read_folder(Path(source), size=size)


def default_source() -> str:
    """What an empty `--data` means: the photographs where `get_gear` puts them, or `drawn`."""
    return str(PHOTOGRAPHS) if PHOTOGRAPHS.is_dir() else "drawn"


def drawn_set(source: str) -> Path:
    """The folder of the drawn set `drawn` or `drawn:COUNT`, drawn now unless it is in the cache."""
    _, _, count = source.partition(":")
    if count and (not count.isdigit() or int(count) < len(CLASSES)):
        raise DataError(f"--data {source}: expected drawn:COUNT, as in drawn:{DRAWN}")
    count = int(count or DRAWN)
    if cache := user_cache():
        with contextlib.suppress(DataError):  # not writable: this once, elsewhere
            return write_drawn(cache / f"drawn-{count}", count)
    return write_drawn(Path(tempfile.mkdtemp(prefix="jaxgear-")) / "drawn", count)


def few(names: Iterable[str], most: int = 3) -> str:
    """The first `most` of `names`, as they can be printed, and how many more there are."""
    names = list(map(printable, names))
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if names[most:] else "")
