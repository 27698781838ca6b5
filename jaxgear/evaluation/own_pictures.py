"""Finds the images of a finished run again by their hashes, wherever they are now."""

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from jaxgear.bundle import Bundle
from jaxgear.data.folder import (
    Folder,
    descriptors_of,
    hashes_of,
    kept_descriptors,
    rows_of_hashes,
    taken,
)
from jaxgear.data.labels import corrected, read_labels
from jaxgear.data.recorded import Pictures
from jaxgear.data.sources import default_source, read_source
from jaxgear.data.splits import KnownPictures
from jaxgear.errors import CheckpointError, DataError
from jaxgear.evaluation.finished import FinishedRun


def open_source(run: FinishedRun, source: str | None, size: int) -> Folder:
    """Reads the data of a run, or `source` in its place, at `size` pixels, with its corrections.

    Raises:
        DataError: it is not there, or its corrections are not.
    """
    place = source or run.config.get("data") or default_source()
    labels = run.config.get("labels")
    try:
        rows = read_labels(Path(labels)) if labels else ()
        folder = read_source(place, size)
        return corrected(folder, Path(labels), rows, size=size, say=_quiet) if labels else folder
    except DataError as error:
        if source:
            raise
        raise DataError(
            f"{run.path}: its pictures are not at {place!r} as its config says (a relative path "
            f"counts from where the run was started); name their folder with --data FOLDER"
        ) from error


def known_descriptors(model: Path, bundle: Bundle, source: str | None) -> Sequence[bytes] | None:
    """Descriptors of the pictures of a model's data, to find near-duplicates of them.

    They come from the cache if all are there, which needs no data folder.

    Args:
        model: a run or a bundle.
        bundle: loaded from it.
        source: where the pictures are; None: where the config of the run says.

    Returns:
        None if they are not found and there is no `source`.

    Raises:
        DataError: none of them is at `source`.
    """
    try:
        if source:
            folder = read_source(source, bundle.size)
        else:
            run = FinishedRun.read(model)
            kept = kept_descriptors(set(run.pictures.sha256), bundle.size)
            if kept is not None:
                return kept
            folder = open_source(run, None, bundle.size)
    except (CheckpointError, DataError):
        if source:
            raise
        return None
    of_run = [bundle.split_of(sha256) is not None for sha256 in hashes_of(folder.records)]
    found = descriptors_of(taken(folder.records, np.flatnonzero(of_run)))
    if source and not len(found):
        raise DataError(
            f"--data {source}: holds none of the pictures of {model} (they are found by their "
            "bytes)"
        )
    return found if len(found) else None


def _quiet(line: str) -> None:
    """What the run itself said of its corrections is not said again."""


def only(folder: Folder, run: FinishedRun, pictures: Pictures, source: str | None = None) -> Folder:
    """`folder` with only the records of `pictures`, in their order.

    Images that were added or moved since do not matter. `source` is the folder that a user named,
    or None; only the error message uses it.

    Raises:
        DataError: an image is gone.
    """
    rows = rows_of_hashes(hashes_of(folder.records), pictures.sha256)
    if len(gone := np.flatnonzero(rows < 0)):
        what_to_do = "name their folder with --data FOLDER"
        if source:
            what_to_do = "--data names another folder, or they were edited (found by their bytes)"
        raise DataError(
            f"{folder.root}: {len(gone)} of the pictures that {run.path} was tested on are not "
            f"there, for example {pictures.paths[gone.item(0)]}; {what_to_do}"
        )
    return dataclasses.replace(folder, records=taken(folder.records, rows))


def trained_on_test(run: FinishedRun) -> dict[str, int | None]:
    """How many test images of a run were trained on, by the path of the run that did.

    That is the run itself, or the model named by `--init-from`; its count is None if the model is
    gone. Empty if no test image was trained on.
    """
    test = set(run.split("test").sha256)
    counts: dict[str, int | None] = {}
    if own := len(test.intersection(run.split("train").sha256)):
        counts[str(run.path)] = own
    if before := run.config.get("init_from"):
        try:
            splits = map(_known(before).split_of, test)
        except CheckpointError:
            counts[before] = None
        else:
            if count := sum(split == "train" for split in splits):
                counts[before] = count
    return counts


@functools.lru_cache(maxsize=8)  # a thousand runs may have started from one model
def _known(path: str) -> KnownPictures:
    return Bundle.load(path).pictures


def warnings_of(run: FinishedRun, trained: Mapping[str, int | None]) -> list[str]:
    """A warning for each entry of `trained_on_test`."""
    return [
        f"{run.path}: its weights come from {by}, which is gone: it is not known whether that was "
        "trained on its test pictures"
        if count is None
        else f"{run.path}: {count} of its {len(run.split('test'))} test pictures were trained on "
        f"by {by}: its test figures are too good"
        for by, count in trained.items()
    ]
