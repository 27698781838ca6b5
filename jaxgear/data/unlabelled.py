"""Images to learn from without labels: `--unlabelled FOLDER`, and their pseudo-labels."""

import math
from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float

from jaxgear.data.dataset import Dataset, PseudoLabel, Split
from jaxgear.data.folder import (
    LazyPictures,
    LazyRecords,
    Record,
    one_after_the_other,
    pixels,
    stored_pictures,
    taken,
)
from jaxgear.data.sources import read_new
from jaxgear.data.splits import near_duplicates_of
from jaxgear.errors import DataError
from jaxgear.text import few


def with_unlabelled(dataset: Dataset, source: str, say: Callable[[str], None] = print) -> Dataset:
    """`dataset` with the images of `source`, less those that it knows and their near-duplicates.

    So no version of a validation or test image is trained on. Unusable files are left out.

    Raises:
        DataError: no image is left, or as `read_new`.
    """
    folder = read_new(source, dataset.size)
    apart = ~near_duplicates_of(folder.records, dataset.folder.records)
    kept = taken(folder.records, np.flatnonzero(apart))
    if not kept:
        raise DataError(f"--unlabelled {source}: no usable picture that the set does not have")
    text = f"{len(kept)} pictures without labels from {source}"
    if left_out := len(folder.records) - len(kept):
        text += f", {left_out} left out (near-duplicates of pictures of the set)"
    say(text)
    if folder.refused:
        names = few(file.path for file in folder.refused)
        say(f"{len(folder.refused)} unusable pictures left out: {names}")
    return replace(dataset, unlabelled=replace(folder, records=kept))


def pseudo_labelled(
    dataset: Dataset,
    probs: Float[np.ndarray, "U K"],
    share: float,
    gear: Bool[np.ndarray, " U"] | None = None,
) -> Dataset:
    """`dataset` with pseudo-labels: each image without a label gets its likeliest class.

    Args:
        probs: of each image without a label, in the order of `dataset.unlabelled`.
        share: of the images of each class to use (`surest`).
        gear: which images show gear; the others are not used. None: all do.
    """
    gear = np.ones(len(probs), bool) if gear is None else gear
    used = np.zeros(len(probs), bool)
    used[gear] = surest(probs[gear], share)
    rows = zip(
        probs.argmax(axis=1).tolist(),
        probs.max(axis=1).tolist(),
        used.tolist(),
        gear.tolist(),
        strict=True,
    )
    return replace(dataset, pseudo_labels=tuple(PseudoLabel(*row) for row in rows))


def surest(probs: Float[np.ndarray, "U K"], share: float) -> Bool[np.ndarray, " U"]:
    """Of the images of each likeliest class, the most probable `share`, rounded up.

    One threshold for all classes would take most images of the classes that a network names too
    often (class-balanced self-training, Zou et al. 2018).
    """
    label, most = probs.argmax(axis=1), probs.max(axis=1)
    used = np.zeros(len(probs), bool)
    for number in range(probs.shape[1]):
        rows = np.flatnonzero(label == number)
        used[rows[np.argsort(-most[rows], kind="stable")][: math.ceil(share * len(rows))]] = True
    return used


def all_unlabelled(dataset: Dataset) -> Split:
    """All images without labels. Their labels, all 0, mean nothing."""
    return _split(dataset, dataset.unlabelled.records, [0] * len(dataset.unlabelled.records))


def named(dataset: Dataset) -> list[tuple[Record, int]]:
    """The images without labels whose pseudo-labels are trained on, with these."""
    if dataset.unlabelled is None:
        return []
    rows = zip(dataset.unlabelled.records, dataset.pseudo_labels, strict=True)
    return [(record, pseudo.label) for record, pseudo in rows if pseudo.used]


def with_pseudo_labels(train: Split, dataset: Dataset) -> Split:
    """The training split, followed by the images whose pseudo-labels are used.

    If the split has masks, theirs are empty: these images have a background of their own.
    """
    if not (used := named(dataset)):
        return train
    records, labels = zip(*used, strict=True)
    more = _split(dataset, records, labels)
    images, count = more.images, len(train.labels) + len(labels)
    if train.images.shape[-1] == 4:
        none = np.zeros((dataset.size, dataset.size, 1), np.uint8)
        images = LazyPictures(
            (len(labels), dataset.size, dataset.size, 4),
            lambda row: np.dstack([more.images[row], none]),
        )
    return Split(
        LazyPictures((count, *train.images.shape[1:]), one_after_the_other(train.images, images)),
        np.concatenate([train.labels, more.labels]),
        LazyRecords(count, one_after_the_other(train.records, more.records)),
    )


def _split(dataset: Dataset, records, labels) -> Split:
    folder = replace(dataset.unlabelled, records=tuple(records))
    images = (stored_pictures if dataset.stored else pixels)(folder, dataset.size)
    return Split(images, np.array(labels, np.int32), folder.records)


class Used(NamedTuple):
    """How pseudo-labels are used. Shares, 0 to 1."""

    share: float  # of the images without labels
    right: float  # of the used ones whose class folder tells the class; NaN: none does


def how_used(dataset: Dataset) -> Used:
    """How the pseudo-labels are used. Where class folders have names of classes, these labels are
    compared with them; nothing is learned from them.
    """
    folder, classes = dataset.unlabelled, dataset.classes
    rows = zip(folder.records, dataset.pseudo_labels, strict=True)
    used = [(folder.classes[record.label], pseudo.label) for record, pseudo in rows if pseudo.used]
    known = [classes[label] == name for name, label in used if name in classes]
    right = sum(known) / len(known) if known else math.nan
    return Used(len(used) / len(folder.records), right)
