"""A train/validation/test split in which no group of images straddles two splits.

The split is a pure function of the images' hashes and a seed. The own split of an image is a
threshold on a hash of (seed, its bytes), so images that are added later never move an old one to
another split.
"""

import hashlib
import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from difflib import get_close_matches

import numpy as np
from jaxtyping import Int

from jaxgear.data.folder import (
    Column,
    Folder,
    Records,
    labels_of,
    rows_of_paths,
    split_numbers,
    splits_and_labels,
    taken,
)
from jaxgear.data.folder.names import ALL, LEFT_OUT, SPLITS
from jaxgear.data.splits.groups import FILE, NEAR_DUPLICATES, groups_of
from jaxgear.errors import DataError, UsageError

_NAMED = 10  # classes in an error


def split_folder(
    folder: Folder, *, seed: int, group_by: str = NEAR_DUPLICATES
) -> tuple[Sequence[str], Sequence[str]]:
    """The group and the split of each record (`groups_of`, `assign_splits`)."""
    groups = groups_of(folder.records, group_by)
    whole = group_by not in (NEAR_DUPLICATES, FILE)
    return groups, assign_splits(folder, groups, seed=seed, whole=whole)


def assign_splits(
    folder: Folder,
    groups: Sequence[str],
    *,
    seed: int,
    fractions: tuple[float, float, float] = (0.70, 0.15, 0.15),
    whole: bool = False,
) -> Sequence[str]:
    """A split for each record: "train", "val", "test" or "left_out".

    Members of a group may have different own splits. Members in the commonest one (of equals, the
    first of test, val, train) keep it; the others are left out, so that no near-duplicate of a test
    image is trained on. This is the price of a split without memory: nearly half of the pairs of
    near-duplicates lose one image. A new near-duplicate may leave an old image out, but never moves
    it to another split.

    Each image is drawn by itself, so classes are stratified only in expectation. If a class has an
    empty split, the groups whose hash is nearest to the threshold fill it. Only in such a tiny
    class may an image change splits when the class grows.

    Pictures that corrections added are trained on or validated on, and move no other picture, so a
    run with them and one without are tested on the same. Near-duplicates of test images are left
    out. Only classes that the set did not have are drawn over all splits.

    Splits of the folder itself are kept. If it has "train" but no "val" or no "test", the missing
    splits are taken from "train" in the same way.

    Args:
        folder: the checked images.
        groups: group of each record (`groups_of`).
        seed: another seed gives another split.
        fractions: of train, val and test; positive, sum 1.
        whole: draw the split of a group by its name, so that no member is left out. For large
            groups: otherwise nearly a third of 30 frames of an object would be left out.

    Raises:
        DataError: a class has fewer groups than splits to fill; the folder's splits lack "train",
            or training images of a class.
        UsageError: other fractions.
    """
    if not all(f > 0 for f in fractions) or not math.isclose(sum(fractions), 1, abs_tol=1e-6):
        raise UsageError(f"fractions {fractions}: train, val and test must be positive with sum 1")
    share = dict(zip(SPLITS, fractions, strict=True))
    if len(added := _added_rows(folder)):
        return _with_added(folder, groups, added, seed, fractions, whole)
    own_splits = {split for split, _ in splits_and_labels(folder.records)} - {None}
    if own_splits and "train" not in own_splits:
        names = ", ".join(sorted(own_splits))
        raise DataError(f"{folder.root}: has the splits {names} but no train")
    if names := missing_classes(folder).get("train"):
        raise DataError(f"{folder.root}: no training pictures of {untrained(folder, names)}")
    order = ("test", "val", "train")
    fill = [split for split in order if split not in own_splits or split == "train"]
    if fill == ["train"] and isinstance(folder.records, Records):
        return folder.records.splits
    splits = [record.split or "train" for record in folder.records]
    pool = [index for index, split in enumerate(splits) if split == "train"]
    if fill == ["train"]:
        return splits
    total = sum(share[split] for split in fill)
    edges = [sum(share[split] for split in fill[: k + 1]) / total for k in range(len(fill) - 1)]

    position = {i: _position(seed, groups[i] if whole else folder.records[i].sha256) for i in pool}
    own = {i: sum(position[i] >= edge for edge in edges) for i in pool}  # index into `fill`
    members = defaultdict(list)
    for i in pool:
        members[groups[i]].append(i)
    natural = {group: _commonest([own[i] for i in rows]) for group, rows in members.items()}
    kept = [i for i in pool if own[i] == natural[groups[i]]]
    first: dict[str, float] = {}
    for i in kept:
        first[groups[i]] = min(position[i], first.get(groups[i], 1.0))
    placed = _fill_empty_splits(folder, [(i, groups[i]) for i in kept], first, natural, len(fill))
    for i in pool:
        splits[i] = LEFT_OUT
    for i in kept:
        splits[i] = fill[placed[groups[i]]]
    return splits


def _added_rows(folder: Folder) -> Int[np.ndarray, " A"]:
    """Rows that corrections added to classes that the set had before."""
    rows, labels = rows_of_paths(folder.records, folder.added), labels_of(folder.records)
    return rows[np.isin(labels[rows], np.delete(labels, rows))]


def _with_added(
    folder: Folder,
    groups: Sequence[str],
    added: Int[np.ndarray, " A"],
    seed: int,
    fractions: tuple[float, float, float],
    whole: bool,
) -> Column:
    """Splits of a folder with the rows `added`: others as without them (`assign_splits`)."""
    rows = np.delete(np.arange(len(folder.records)), added)
    before = replace(folder, records=taken(folder.records, rows), added={})
    own = groups.take(rows) if isinstance(groups, Column) else [groups[row] for row in rows]
    splits = np.zeros(len(folder.records), np.uint8)  # indices into `ALL`
    splits[rows] = split_numbers(
        assign_splits(before, own, seed=seed, fractions=fractions, whole=whole)
    )
    in_group = defaultdict(set)
    for row in np.setdiff1d(_beside(groups, added), added).tolist():
        in_group[groups[row]].add(ALL[splits[row]])
    train, val, _ = fractions
    for row in added.tolist():
        beside = in_group[groups[row]] - {LEFT_OUT}
        if not in_group[groups[row]]:
            new = "val" if _position(seed, groups[row]) < val / (train + val) else "train"
        else:
            new = beside.pop() if beside in ({"train"}, {"val"}) else LEFT_OUT
        splits[row] = ALL.index(new)
    return Column(splits, ALL.__getitem__)


def _beside(groups: Sequence[str], rows: Int[np.ndarray, " n"]) -> Int[np.ndarray, " m"]:
    """All rows of the groups that some rows are in."""
    if isinstance(groups, Column):
        return np.flatnonzero(np.isin(groups.values, groups.values[rows]))
    wanted = {groups[row] for row in rows.tolist()}
    return np.flatnonzero([group in wanted for group in groups])


def missing_classes(folder: Folder) -> dict[str, list[str]]:
    """For each split of the folder itself, the classes without an image in it."""
    present = splits_and_labels(folder.records)
    return {
        split: [n for label, n in enumerate(folder.classes) if (split, label) not in present]
        for split in SPLITS
        if any(split == own for own, _ in present)
    }


def untrained(folder: Folder, names: Sequence[str]) -> str:
    """Classes without training images, for a message; the first ten with a similar class name."""
    others = sorted(set(folder.classes).difference(names))
    likely = ((name, get_close_matches(name, others, 1)) for name in names[:_NAMED])
    named = [f"{name} (is it {near[0]}?)" if near else name for name, near in likely]
    more = len(names) - len(named)
    return ", ".join(named) + (f" and {more} more" if more else "")


def _fill_empty_splits(
    folder: Folder,
    kept: list[tuple[int, str]],
    first: dict[str, float],
    natural: dict[str, int],
    count: int,
) -> dict[str, int]:
    """The split (0 to count - 1) of each group, such that every split holds every class.

    Sorted by hash, the groups of a class lie in the splits in order. So moving the boundary next to
    an empty split by one fills it. Classes that are in every split stay unchanged.
    """
    of_class = defaultdict(set)
    for i, group in kept:
        of_class[folder.records[i].label].add(group)
    placed = dict(natural)
    for label, name in enumerate(folder.classes):
        groups = sorted(of_class[label], key=lambda group: (first[group], group))
        if len(groups) < count:
            pictures = sum(record.label == label for record in folder.records)
            raise DataError(
                f"{folder.root}: class {name} has {pictures} pictures to split in {len(groups)} "
                f"groups; at least {count} groups are needed, one for each split (near-duplicates "
                "are one group, unless --group-by says otherwise); add other pictures, or put them "
                "in train, val and test folders, or group by something else: "
                "--group-by file, folder, or a pattern in names"
            )
        start = 0
        for split in range(count):
            boundary = sum(natural[group] <= split for group in groups)
            after = count - 1 - split  # later splits, which need one group each
            stop = min(max(boundary, start + 1), len(groups) - after)
            for group in groups[start:stop]:
                if split != natural[group]:
                    placed[group] = split
            start = stop
    for label, name in enumerate(folder.classes):
        if len({placed[group] for group in of_class[label]}) < count:
            raise DataError(
                f"{folder.root}: the few pictures of class {name} are near-duplicates of another "
                "small class; add pictures of it, or look for wrong labels"
            )
    return placed


def _commonest(splits: list[int]) -> int:
    """The most frequent index into (test, val, train); of equals the smallest."""
    return max(sorted(set(splits)), key=splits.count)


def _position(seed: int, sha256: str) -> float:
    """The hash of an image as a number in [0, 1): uniform, independent of other images."""
    digest = hashlib.sha256(f"{seed}:{sha256}".encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64
