"""Which pictures are compared: new ones, and those of a run that it did not learn.

The test assumes that both sets are samples of the same kind. So the new images leave out
near-duplicates of the run's images, and the reference leaves out images that have near-duplicates.
Of new near-duplicates, one stays.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np
from jaxtyping import Int

from jaxgear.data.folder import (
    Column,
    Folder,
    Record,
    first_eight,
    hashes_of,
    rows_of_hashes,
    split_numbers,
    taken,
)
from jaxgear.data.folder.names import ALL
from jaxgear.data.splits import near_duplicate_groups, near_duplicates_of
from jaxgear.errors import DataError
from jaxgear.evaluation.finished import FinishedRun
from jaxgear.evaluation.own_pictures import open_source

MOST = 1500  # of each are compared; more are thinned out evenly
_HELD_OUT = [ALL.index(split) for split in ("val", "test")]


def known_pictures(run: FinishedRun, folder: Folder, source: str | None, size: int) -> Folder:
    """A folder with the run's pictures alone: `folder`, if it has most of them, or their own.

    Raises:
        DataError: they are not at `source`, or where the run's config says.
    """
    held_out = run.split("val", "test").sha256
    here = np.count_nonzero(rows_of_hashes(hashes_of(folder.records), held_out) >= 0)
    if source or here < len(held_out) / 2:
        folder = open_source(run, source, size)
    known = np.flatnonzero(_rows(run, folder.records) >= 0)
    if not len(known):
        raise DataError(
            f"{folder.root}: holds none of the pictures of {run.path} (they are found by their "
            "bytes); name their folder with --data FOLDER"
        )
    return dataclasses.replace(folder, records=taken(folder.records, known))


def choose_new(run: FinishedRun, folder: Folder, known: Folder) -> tuple[Sequence[Record], int]:
    """Pictures of `folder` that are new to the run, one of each group; and how many are new."""
    new = taken(folder.records, np.flatnonzero(_rows(run, folder.records) < 0))
    new = taken(new, np.flatnonzero(~near_duplicates_of(new, known.records)))
    groups = near_duplicate_groups(new, own=False)
    return taken(new, _one_of_each(new, _numbers(groups), np.arange(len(new)))), len(new)


def choose_reference(run: FinishedRun, known: Folder) -> tuple[Sequence[Record], list[str]]:
    """Held-out pictures without near-duplicates among the known ones, and their classes.

    If fewer than half remain, it takes one image of each group.
    """
    records, of_run = known.records, _rows(run, known.records)
    number = _numbers(near_duplicate_groups(records))
    held_out = np.isin(split_numbers(run.pictures.splits)[of_run], _HELD_OUT)
    rows = _one_of_each(records, number, np.flatnonzero(held_out))
    _, once = np.unique(first_eight(hashes_of(records)), return_index=True)  # of equal bytes one
    alone = rows[np.bincount(number[once])[number[rows]] == 1]
    rows = alone if len(alone) >= len(rows) / 2 else rows
    return taken(records, rows), [run.pictures.names[row] for row in of_run[rows].tolist()]


def _rows(run: FinishedRun, records: Sequence[Record]) -> Int[np.ndarray, " N"]:
    """The row among the run's pictures of each record, or -1."""
    return rows_of_hashes(run.pictures.sha256, hashes_of(records))


def _one_of_each(
    records: Sequence[Record], number: Int[np.ndarray, " N"], rows: Int[np.ndarray, " n"]
) -> Int[np.ndarray, " m"]:
    """Of some rows, one of each group, in the order of their hashes: any part is a sample.

    `number`: of each record's group.
    """
    rows = rows[np.argsort(first_eight(hashes_of(records))[rows], kind="stable")]
    _, first = np.unique(number[rows], return_index=True)
    return rows[np.sort(first)[:MOST]]


def _numbers(groups: Column) -> Int[np.ndarray, " N"]:
    """A number from 0 for each group."""
    return np.unique(groups.values, return_inverse=True)[1]
