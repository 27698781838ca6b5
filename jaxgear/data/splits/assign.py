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
from jaxtyping import Float, Int, UInt64

from jaxgear.data.folder import (
    Column,
    Folder,
    Records,
    digests,
    grouped,
    hashes_of,
    labels_of,
    octets,
    own_splits,
    rows_of_paths,
    split_numbers,
    splits_and_labels,
    taken,
)
from jaxgear.data.folder.names import ALL, LEFT_OUT, OWN, SPLITS
from jaxgear.data.splits.groups import FILE, NEAR_DUPLICATES, groups_of
from jaxgear.errors import DataError, UsageError

_NAMED = 10  # classes in an error


def split_folder(
    folder: Folder, *, seed: int, group_by: str = NEAR_DUPLICATES
) -> tuple[Column, Column]:
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
) -> Column:
    """A split for each record: "train", "val", "test" or "left_out".

    Members of a group may have different own splits. Members in the commonest one (of equals, the
    first of test, val, train) keep it; the others are left out, so that no near-duplicate of a test
    image is trained on. The split stores nothing, so nearly half of all near-duplicate pairs lose
    one image. A new near-duplicate may leave an old image out, but never moves it to another split.

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
    share, groups = dict(zip(SPLITS, fractions, strict=True)), grouped(groups)
    if len(added := _added_rows(folder)):
        return _with_added(folder, groups, added, seed, fractions, whole)
    present = {split for split, _ in splits_and_labels(folder.records)} - {None}
    if present and "train" not in present:
        names = ", ".join(sorted(present))
        raise DataError(f"{folder.root}: has the splits {names} but no train")
    if names := missing_classes(folder).get("train"):
        raise DataError(f"{folder.root}: no training pictures of {untrained(folder, names)}")
    fill = [split for split in ("test", "val", "train") if split not in present - {"train"}]
    if fill == ["train"] and isinstance(folder.records, Records):
        return folder.records.splits
    total = sum(share[split] for split in fill)
    edges = [sum(share[split] for split in fill[: k + 1]) / total for k in range(len(fill) - 1)]
    splits = own_splits(folder.records).copy()
    splits[splits == OWN.index("")] = ALL.index("train")
    if edges:
        pool = np.flatnonzero(splits == ALL.index("train"))
        names = groups if whole else digests(octets(hashes_of(folder.records)))
        position = np.fromiter((_position(seed, n) for n in names.take(pool)), np.float64)
        own = np.searchsorted(edges, position, "right")  # index into `fill`
        placed = _in_one_split(folder, pool, groups.values[pool], position, own, len(fill))
        splits[pool] = np.array([ALL.index(split) for split in (*fill, LEFT_OUT)])[placed]
    return Column(splits, ALL.__getitem__)


def _in_one_split(
    folder: Folder,
    pool: Int[np.ndarray, " n"],
    groups: UInt64[np.ndarray, " n"],
    position: Float[np.ndarray, " n"],
    own: Int[np.ndarray, " n"],
    count: int,
) -> Int[np.ndarray, " n"]:
    """The split of each row, 0 to `count` - 1; -1: left out. `own`: what its position gives."""
    _, group = np.unique(groups, return_inverse=True)
    votes = np.bincount(group * count + own, minlength=count * (1 + group.max(initial=-1)))
    natural = votes.reshape(-1, count).argmax(axis=1)  # of each group; of equals the first
    kept = own == natural[group]
    first = np.ones(len(natural))  # smallest position of each group
    np.minimum.at(first, group[kept], position[kept])
    of_class = _groups_of_classes(folder, pool[kept], group[kept], first)
    placed = _fill_empty_splits(folder, of_class, natural, count)
    return np.where(kept, placed[group], -1)


def _groups_of_classes(
    folder: Folder,
    rows: Int[np.ndarray, " n"],
    group: Int[np.ndarray, " n"],
    first: Float[np.ndarray, " G"],
) -> list[Int[np.ndarray, " _"]]:
    """For each class its groups among some rows, by their smallest position."""
    labels = labels_of(folder.records)[rows]
    classes = (np.unique(group[labels == label]) for label in range(len(folder.classes)))
    return [groups[np.argsort(first[groups], kind="stable")] for groups in classes]


def _added_rows(folder: Folder) -> Int[np.ndarray, " A"]:
    """Rows that corrections added to classes that the set had before."""
    rows, labels = rows_of_paths(folder.records, folder.added), labels_of(folder.records)
    return rows[np.isin(labels[rows], np.delete(labels, rows))]


def _with_added(
    folder: Folder,
    groups: Column,
    added: Int[np.ndarray, " A"],
    seed: int,
    fractions: tuple[float, float, float],
    whole: bool,
) -> Column:
    """Splits of a folder with the rows `added`: others as without them (`assign_splits`)."""
    rows = np.delete(np.arange(len(folder.records)), added)
    before = replace(folder, records=taken(folder.records, rows), added={})
    splits = np.zeros(len(folder.records), np.uint8)  # indices into `ALL`
    splits[rows] = split_numbers(
        assign_splits(before, groups.take(rows), seed=seed, fractions=fractions, whole=whole)
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


def _beside(groups: Column, rows: Int[np.ndarray, " n"]) -> Int[np.ndarray, " m"]:
    """All rows of the groups that some rows are in."""
    return np.flatnonzero(np.isin(groups.values, groups.values[rows]))


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
    of_class: Sequence[Int[np.ndarray, " _"]],
    natural: Int[np.ndarray, " G"],
    count: int,
) -> Int[np.ndarray, " G"]:
    """The split (0 to count - 1) of each group, such that every split holds every class.

    Sorted by hash, the groups of a class lie in the splits in order. So moving the boundary next to
    an empty split by one fills it. Classes that are in every split stay unchanged.
    """
    placed = natural.copy()
    for label, groups in enumerate(of_class):
        if len(groups) < count:
            pictures = int((labels_of(folder.records) == label).sum())
            raise DataError(
                f"{folder.root}: class {folder.classes[label]} has {pictures} pictures to split in "
                f"{len(groups)} groups; at least {count} groups are needed, one for each split "
                "(near-duplicates are one group, unless --group-by says otherwise); add other "
                "pictures, or put them in train, val and test folders, or group by something else: "
                "--group-by file, folder, or a pattern in names"
            )
        start = 0
        for split in range(count):
            boundary = int((natural[groups] <= split).sum())
            after = count - 1 - split  # later splits, which need one group each
            stop = min(max(boundary, start + 1), len(groups) - after)
            part = groups[start:stop]
            placed[part[natural[part] != split]] = split
            start = stop
    for label, groups in enumerate(of_class):
        if len(np.unique(placed[groups])) < count:
            raise DataError(
                f"{folder.root}: the few pictures of class {folder.classes[label]} are near-"
                "duplicates of another small class; add pictures of it, or look for wrong labels"
            )
    return placed


def _position(seed: int, sha256: str) -> float:
    """The hash of an image as a number in [0, 1): uniform, independent of other images."""
    digest = hashlib.sha256(f"{seed}:{sha256}".encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64
