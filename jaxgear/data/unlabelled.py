"""Images to learn from without labels: `--unlabelled FOLDER`."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from jaxgear.data.dataset import Dataset, Split
from jaxgear.data.folder import LazyPictures, pixels, stored_pictures
from jaxgear.data.sources import read_new
from jaxgear.data.splits import near_duplicate_groups
from jaxgear.errors import DataError
from jaxgear.text import few

NO_LABEL = -1


def hidden(label):
    """The label below 0 of an image that is trained on without its label, which is only counted.

    Its own inverse. Takes a number or an array.
    """
    return -2 - label


def with_unlabelled(dataset: Dataset, source: str, say: Callable[[str], None] = print) -> Dataset:
    """`dataset` with the images of `source`, less those that it knows and their near-duplicates.

    So no version of a validation or test image is trained on. Unusable files are left out.

    Raises:
        DataError: no image is left, or as `read_new`.
    """
    folder = read_new(source, dataset.size)
    records = (*dataset.folder.records, *folder.records)
    groups = near_duplicate_groups(records)
    known = set(groups[: len(dataset.folder.records)])
    rows = zip(folder.records, groups[len(dataset.folder.records) :], strict=True)
    kept = tuple(record for record, group in rows if group not in known)
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


def unlabelled_split(dataset: Dataset, masks: bool = False) -> Split:
    """The images without labels; with `masks`, an empty mask: they have a background of their own.

    Where a class folder tells the class, the label is `hidden`: it is counted how many
    pseudo-labels are right, and nothing is learned from it. Else it is `NO_LABEL`.
    """
    folder, size = dataset.unlabelled, dataset.size
    known = {name: hidden(label) for label, name in enumerate(dataset.classes)}
    labels = [known.get(folder.classes[record.label], NO_LABEL) for record in folder.records]
    images = (stored_pictures if dataset.stored else pixels)(folder, size)
    if masks:
        none = np.zeros((size, size, 1), np.uint8)
        images = LazyPictures(
            (len(labels), size, size, 4), lambda row, plain=images: np.dstack([plain[row], none])
        )
    return Split(images, np.array(labels, np.int32), folder.records)


def joined(first: Split, second: Split) -> Split:
    """The images of two splits, made on access."""
    count = len(first.labels)
    return Split(
        LazyPictures(
            (count + len(second.labels), *first.images.shape[1:]),
            lambda row: first.images[row] if row < count else second.images[row - count],
        ),
        np.concatenate([first.labels, second.labels]),
        first.records + second.records,
    )
