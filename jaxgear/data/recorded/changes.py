"""How a set differs from the one that a run recorded."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from jaxtyping import Int

from jaxgear.data.dataset import Dataset, PseudoLabel
from jaxgear.data.folder import Column, Record, hashes_of, labels_of, paths_of, split_numbers
from jaxgear.data.folder.names import ALL, LEFT_OUT
from jaxgear.data.recorded.read import Pictures, Recorded
from jaxgear.data.splits import KnownPictures
from jaxgear.data.unlabelled import named
from jaxgear.text import stable_key

_TRAIN = ALL.index("train")
_Row = tuple[Any, ...]  # a path, then what is compared


def known_pictures(dataset: Dataset) -> KnownPictures:
    """The images that a bundle recognises, with their splits: all, and those without labels that
    were trained on.
    """
    sha256, splits = hashes_of(dataset.folder.records), dataset.splits
    if more := [record.sha256 for record, _ in named(dataset)]:
        sha256, splits = [*sha256, *more], [*splits, *["train"] * len(more)]
    return KnownPictures.of(sha256, splits)


def without_trained(recorded: Recorded, dataset: Dataset) -> Dataset:
    """`dataset` without validation and test images that the run was trained on.

    An edited image has another hash, so it may have moved from the training split to another one;
    such images are left out.
    """
    before, now = split_numbers(recorded.pictures.splits), split_numbers(dataset.splits)
    tested = np.isin(now, [ALL.index(name) for name in ("val", "test")])
    if recorded.fingerprint == dataset.folder.fingerprint and len(before) == len(now):
        moved = np.flatnonzero(tested & (before == _TRAIN))  # equal sets have the same order
    else:
        pairs = _pairs(
            _by_path(recorded.pictures.paths, before.tolist()),
            _by_path(paths_of(dataset.folder.records), range(len(now))),
        )
        rows = [own[1] for old, own in pairs if old and own and old[1] == _TRAIN]
        moved = np.array([row for row in rows if tested[row]], np.int64)
    if not len(moved):
        return dataset
    now = now.copy()
    now[moved] = ALL.index(LEFT_OUT)
    return replace(dataset, splits=Column(now, ALL.__getitem__))


def changed_pictures(recorded: Recorded, dataset: Dataset) -> list[str]:
    """Differences between `dataset` and the set in `splits.json`: one line per image."""
    changes = []
    if recorded.fingerprint != dataset.folder.fingerprint:
        old, records = recorded.pictures, dataset.folder.records
        names = Column(labels_of(records), dataset.classes.__getitem__)
        changes = _differences(
            _by_path(old.paths, old.sha256, old.names),
            _by_path(paths_of(records), hashes_of(records), names),
            "",
        )
    before = [(row["path"], row["sha256"]) for row in recorded.unlabelled]
    unlabelled = dataset.unlabelled.records if dataset.unlabelled else ()
    now = _by_path(paths_of(unlabelled), hashes_of(unlabelled))
    return changes + _differences(_by_path(*zip(*before)), now, "unlabelled, ")  # noqa: B905


def unchanged(
    records: Sequence[Record], pictures: Pictures
) -> tuple[Int[np.ndarray, " n"], Int[np.ndarray, " n"]]:
    """Rows of records and of recorded images with the same path and bytes, sorted by path."""
    now = _by_path(paths_of(records), hashes_of(records), range(len(records)))
    before = _by_path(pictures.paths, pictures.sha256, range(len(pictures)))
    same = ((own[2], old[2]) for old, own in _pairs(before, now) if old[:2] == own[:2])
    rows = np.fromiter(same, np.dtype((np.int64, 2)))
    return rows[:, 0], rows[:, 1]


def with_recorded_labels(rows: Sequence[Mapping[str, Any]], dataset: Dataset) -> Dataset:
    """`dataset` with recorded pseudo-labels, as `describe_unlabelled` has them. Images without one
    are not used.
    """
    known = {
        row["sha256"]: PseudoLabel(
            dataset.classes.index(row["pseudo_label"]),
            row["probability"],
            row["used"],
            row.get("gear", True),
        )
        for row in rows
    }
    unused = PseudoLabel(0, 0.0, False)
    labels = (known.get(record.sha256, unused) for record in dataset.unlabelled.records)
    return replace(dataset, pseudo_labels=tuple(labels))


def _by_path(paths: Sequence[str] = (), *columns: Iterable[Any]) -> Iterator[_Row]:
    """Rows sorted by path. Those of columns are sorted already, so they need no memory."""
    rows = zip(paths, *columns, strict=True)
    return rows if isinstance(paths, Column) else iter(sorted(rows, key=_key))


def _key(row: _Row) -> tuple[str, str]:
    return stable_key(row[0])


def _pairs(before: Iterator[_Row], now: Iterator[_Row]) -> Iterator[tuple[_Row, _Row]]:
    """Merges two sequences sorted by path. Yields (before, now) for each path; (): not there."""
    old, own = next(before, ()), next(now, ())
    while old or own:
        if old and own and old[0] == own[0]:
            yield old, own
            old, own = next(before, ()), next(now, ())
        elif not own or (old and _key(old) < _key(own)):
            yield old, ()
            old = next(before, ())
        else:
            yield (), own
            own = next(now, ())


def _differences(before: Iterator[_Row], now: Iterator[_Row], kind: str) -> list[str]:
    return [
        f"{(old or own)[0]} ({kind}{'added' if not old else 'removed' if not own else 'edited'})"
        for old, own in _pairs(before, now)
        if old != own
    ]
