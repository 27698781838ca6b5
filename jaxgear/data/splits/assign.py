"""A train/validation/test split in which no group of pictures straddles two parts.

The split is a pure function of the pictures' hashes and a seed and has no memory: a picture's own
split is a threshold on a hash of (seed, its bytes), so pictures that are added later never move an
old one to another split.
"""

import hashlib
import math
from collections import defaultdict
from collections.abc import Sequence
from difflib import get_close_matches

from jaxgear.data.folder import Folder, Record
from jaxgear.data.folder.names import LEFT_OUT, SPLITS
from jaxgear.data.splits.groups import FILE, NEAR_DUPLICATES, groups_of
from jaxgear.errors import DataError, UsageError

_NAMED = 10  # classes in an error


def split_folder(
    folder: Folder, *, seed: int, group_by: str = NEAR_DUPLICATES
) -> tuple[list[str], list[str]]:
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
) -> list[str]:
    """A split for each record: "train", "val", "test" or "left_out".

    The members of a group may have different splits of their own. Those in the commonest split (of
    equals, the first of test, val, train) keep it, and the others are left out, so that no
    near-duplicate of a test image is trained on. The price of having no memory: of nearly half of
    the pairs of near-duplicates one is left out. A new near-duplicate may leave an old image out,
    but never moves it to another split.

    Classes are stratified in expectation only, as each picture is drawn by itself. A class with a
    split that came out empty gets it filled with the groups whose hash is nearest to the threshold;
    only in such a tiny class may a picture change splits when the class grows.

    Sides that the folder itself has are kept. Where it has "train" but no "val" or no "test", the
    missing ones are taken from "train" in the same way.

    Args:
        folder: the checked pictures.
        groups: of each record (`groups_of`).
        seed: another seed, another split.
        fractions: of train, val and test; positive, sum 1.
        whole: a group's split is drawn by its name, so that none of its members is left out. For
            large groups: of 30 frames of an object nearly a third would be.

    Raises:
        DataError: a class with fewer groups than splits to fill; splits without "train", or without
            training pictures of a class.
        UsageError: fractions that are not as above.
    """
    if not all(f > 0 for f in fractions) or not math.isclose(sum(fractions), 1, abs_tol=1e-6):
        raise UsageError(f"fractions {fractions}: train, val and test must be positive with sum 1")
    share = dict(zip(SPLITS, fractions, strict=True))
    given = {record.split for record in folder.records} - {None}
    if given and "train" not in given:
        raise DataError(f"{folder.root}: has the splits {', '.join(sorted(given))} but no train")
    if names := missing_classes(folder).get("train"):
        raise DataError(f"{folder.root}: no training pictures of {untrained(folder, names)}")
    fill = [split for split in ("test", "val", "train") if split not in given or split == "train"]
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
    natural = {group: _commonest([own[i] for i in found]) for group, found in members.items()}
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


def missing_classes(folder: Folder) -> dict[str, list[str]]:
    """For each of the splits that the folder itself has, the classes without a picture there."""
    present = {(record.split, record.label) for record in folder.records}
    return {
        split: [n for label, n in enumerate(folder.classes) if (split, label) not in present]
        for split in SPLITS
        if any(split == given for given, _ in present)
    }


def untrained(folder: Folder, names: Sequence[str]) -> str:
    """Classes without training pictures, the first with the class that each may be meant to be."""
    others = sorted(set(folder.classes).difference(names))
    likely = ((name, get_close_matches(name, others, 1)) for name in names[:_NAMED])
    named = [f"{name} (is it {near[0]}?)" if near else name for name, near in likely]
    more = len(names) - len(named)
    return ", ".join(named) + (f" and {more} more" if more else "")


def near_duplicates_across(
    records: Sequence[Record], groups: Sequence[str], splits: Sequence[str]
) -> list[tuple[Record, Record]]:
    """Near-duplicates that a folder's own splits keep apart: (one in train or val, one tested on).

    One pair for each picture that has a near-duplicate in a later split of train, val, test.
    """
    best: dict[str, int] = {}
    for index, (group, split) in enumerate(zip(groups, splits, strict=True)):
        if split == LEFT_OUT:
            continue
        if SPLITS.index(split) > SPLITS.index(splits[best.setdefault(group, index)]):
            best[group] = index
    return [
        (record, records[best[group]])
        for record, group, split in zip(records, groups, splits, strict=True)
        if split != LEFT_OUT and split != splits[best[group]]
    ]


def near_duplicates_in_two_classes(
    records: Sequence[Record], groups: Sequence[str]
) -> list[tuple[Record, Record]]:
    """Near-duplicates with different labels, of which one is probably wrong: a pair for each
    picture whose class is not that of the first in its group.
    """
    first: dict[str, Record] = {}
    pairs = [
        (record, first.setdefault(group, record))
        for record, group in zip(records, groups, strict=True)
    ]
    return [(record, other) for record, other in pairs if record.label != other.label]


def _fill_empty_splits(
    folder: Folder,
    kept: list[tuple[int, str]],
    first: dict[str, float],
    natural: dict[str, int],
    count: int,
) -> dict[str, int]:
    """Splits by group (0 to count - 1) such that each class is in every one of `count` splits.

    Sorted by hash, the groups of a class lie in the splits in order, so an empty split is filled by
    moving the boundary next to it by one; classes that are in every split stay as they are.
    """
    of_class = defaultdict(set)
    for i, group in kept:
        of_class[folder.records[i].label].add(group)
    placed = dict(natural)
    for label, name in enumerate(folder.classes):
        found = sorted(of_class[label], key=lambda group: (first[group], group))
        if len(found) < count:
            pictures = sum(record.label == label for record in folder.records)
            raise DataError(
                f"{folder.root}: class {name} has {pictures} pictures to split in {len(found)} "
                f"groups, and at least {count} groups are needed, one for each split (pictures "
                "that look alike are one group, unless --group-by says otherwise); add other "
                "pictures, or put them in train, val and test folders, or group by something else: "
                "--group-by file, folder, or a pattern in names"
            )
        start = 0
        for split in range(count):
            boundary = sum(natural[group] <= split for group in found)
            after = count - 1 - split  # splits still to be filled, with at least one group each
            stop = min(max(boundary, start + 1), len(found) - after)
            for group in found[start:stop]:
                if split != natural[group]:
                    placed[group] = split
            start = stop
    for label, name in enumerate(folder.classes):
        if len({placed[group] for group in of_class[label]}) < count:
            raise DataError(
                f"{folder.root}: the few pictures of class {name} look like those of another small "
                "class; add pictures of it, or look for wrong labels"
            )
    return placed


def _commonest(splits: list[int]) -> int:
    """The most frequent of indices into test, val, train; of equals the smallest."""
    return max(sorted(set(splits)), key=splits.count)


def _position(seed: int, sha256: str) -> float:
    """A picture's place in [0, 1): uniform, independent of all others."""
    digest = hashlib.sha256(f"{seed}:{sha256}".encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64
