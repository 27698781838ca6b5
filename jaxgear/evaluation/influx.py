"""What changed in a data folder since a run was trained on it: classes, splits, near-duplicates."""

from collections import Counter
from typing import Any

import numpy as np
from jaxtyping import Int, Int32

from jaxgear.data.folder import (
    HEAP,
    Folder,
    hashes_of,
    labels_of,
    paths_of,
    rows_of_hashes,
    rows_of_split,
    split_numbers,
    taken,
)
from jaxgear.data.folder.names import ALL
from jaxgear.data.recorded import unchanged
from jaxgear.data.splits import LEFT_OUT, NEAR_DUPLICATES, require_clean, split_folder
from jaxgear.evaluation.finished import FinishedRun

_LEFT_OUT = ALL.index(LEFT_OUT)


def since(run: FinishedRun, folder: Folder) -> dict[str, Any]:
    """Numbers of images by class and split, before and now, with the seed of the run.

    Keys: `run`, `pictures` {before, now, added, removed}; `classes`, a row each {before, now,
    added}; `sides` {before, now}, by split; `moved`, paths of old images that are in another split
    now; `left_out`, paths of old images that a new near-duplicate keeps out; `only_new`, whether
    `folder` holds none of the old images in their places. Then the old images are assumed to stay:
    `now` counts them too, and the splits of the new images are unknown (None). Of a folder without
    classes (`read_heap`), `classes` is empty. Unusable images do not count.

    Raises:
        DataError: a class that is too small to be split.
    """
    folder = require_clean(folder, "skip")
    rows, old_rows = unchanged(folder.records, run.pictures)
    if not len(rows):
        return _beside(run, folder)
    group_by = run.config.get("group_by", NEAR_DUPLICATES)  # older runs have no such flag
    _, splits = split_folder(folder, seed=int(run.config["seed"]), group_by=group_by)
    old, now = split_numbers(run.pictures.splits)[old_rows], split_numbers(splits)[rows]
    other = (old != _LEFT_OUT) & (now != old)
    before, sides = _counts(run)
    labels = labels_of(folder.records)
    after, added = _by_class(folder, labels), _by_class(folder, np.delete(labels, rows))
    return {
        "run": str(run.path),
        "pictures": {
            "before": len(run.pictures),
            "now": len(labels),
            "added": len(labels) - len(rows),
            "removed": len(run.pictures) - len(rows),
        },
        "classes": {
            name: {"before": before[name], "now": after[name], "added": added[name]}
            for name in sorted(before | after)
        },
        "sides": {
            name: {"before": sides[name], "now": len(rows_of_split(splits, name))} for name in ALL
        },
        "moved": _paths(folder, rows[other & (now != _LEFT_OUT)]),
        "left_out": _paths(folder, rows[other & (now == _LEFT_OUT)]),
        "only_new": False,
    }


def _beside(run: FinishedRun, folder: Folder) -> dict[str, Any]:
    """`since` for a folder of new images alone. Copies of old images are not new."""
    new = rows_of_hashes(run.pictures.sha256, hashes_of(folder.records)) < 0
    added = _by_class(folder, labels_of(folder.records)[new])
    before, sides = _counts(run)
    return {
        "run": str(run.path),
        "pictures": {
            "before": before.total(),
            "now": before.total() + added.total(),
            "added": added.total(),
            "removed": 0,
        },
        "classes": {
            name: {"before": before[name], "now": before[name] + added[name], "added": added[name]}
            for name in sorted(before | added)
            if HEAP not in folder.classes
        },
        "sides": {name: {"before": sides[name], "now": None} for name in ALL},
        "moved": [],
        "left_out": [],
        "only_new": True,
    }


def _counts(run: FinishedRun) -> tuple[Counter[str], Counter[str]]:
    """The number of the run's images of each class, and of each split."""
    classes, splits = Counter[str](), Counter[str]()
    for (name, split), number in run.pictures.counts().items():
        classes[name] += number
        splits[split] += number
    return classes, splits


def _by_class(folder: Folder, labels: Int32[np.ndarray, " N"]) -> Counter[str]:
    """How often each class is a label."""
    counts = np.bincount(labels, minlength=len(folder.classes)).tolist()
    return Counter(dict(zip(folder.classes, counts, strict=True)))


def _paths(folder: Folder, rows: Int[np.ndarray, " n"]) -> list[str]:
    return list(paths_of(taken(folder.records, rows)))


def lines(changes: dict[str, Any]) -> list[str]:
    """The result of `since` as lines to print."""
    count = changes["pictures"]
    text = [
        f"since {changes['run']}: {count['before']} pictures then, {count['now']} now "
        f"({count['added']} added, {count['removed']} removed; an edited one is both)"
    ]
    for name, row in changes["classes"].items():
        shares = (row[when] / max(1, count[when]) for when in ("before", "now"))
        before, now = (f"{share:6.1%}" for share in shares)
        text.append(f"  {name:24} {row['before']:6} {before}  ->{row['now']:6} {now}")
    if changes["only_new"]:
        text.append(
            "this folder holds none of the old pictures: they are assumed to stay where they are; "
            "put old and new in one folder to see the splits of the new ones"
        )
        return text
    splits = (f"{name} {row['before']} -> {row['now']}" for name, row in changes["sides"].items())
    text.append(f"splits with the seed of that run: {', '.join(splits)}")
    text.append(
        f"  {len(changes['moved'])} old pictures are in another split now, "
        f"{len(changes['left_out'])} are left out because of a new near-duplicate"
    )
    return text
