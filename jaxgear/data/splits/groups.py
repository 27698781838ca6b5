"""Groups of images that must stay in one split."""

import re
from collections.abc import Iterator, Sequence

import numpy as np
from jaxtyping import Bool, Int, UInt64

from jaxgear.data.folder import (
    Column,
    Record,
    Records,
    descriptors_of,
    facts_about,
    grouped,
    grouped_by_hash,
    hashes_of,
    labels_of,
    mixed,
    paths_of,
    rows_of_hashes,
    sortable,
    split_numbers,
    taken,
)
from jaxgear.data.folder.names import ALL, LEFT_OUT, SPLITS
from jaxgear.data.splits import near_duplicates
from jaxgear.errors import UsageError

NEAR_DUPLICATES, FILE, FOLDER = "near-duplicates", "file", "folder"
_KNOWN = 100_000  # records that new ones are compared with at a time: 370 MiB


def groups_of(records: Sequence[Record], by: str = NEAR_DUPLICATES) -> Column:
    """A group id for each record. Files with equal bytes always share a group.

    Args:
        by: `near-duplicates` (see `near_duplicate_groups`); `file`: each file alone; `folder`: one
            group per folder. Else a regular expression that is searched in each path: images with
            the same first group that took part, or the same match if none did, share a
            group. An image without a match is alone.

    Raises:
        UsageError: not a regular expression, or no path matches it.
    """
    if by == NEAR_DUPLICATES:
        return near_duplicate_groups(records)
    if by == FILE:
        return grouped_by_hash(hashes_of(records))
    pattern, found = _compiled(r"(.*)/" if by == FOLDER else by), False

    def name(path: str, sha256: str) -> str:
        nonlocal found
        match = pattern.search(path)
        found = found or match is not None
        if match is None:
            return sha256[:12]
        return next((part for part in match.groups() if part is not None), match[0])

    groups = grouped(map(name, paths_of(records), hashes_of(records)))
    if not found:
        raise UsageError(f"--group-by {by}: matches the path of no picture")
    return groups.of(_with_copies(groups.values, hashes_of(records)))


def _with_copies(
    groups: UInt64[np.ndarray, " N"], sha256: Sequence[str]
) -> UInt64[np.ndarray, " N"]:
    """Groups, merged where equal bytes are in several."""
    parents: dict[int, int] = {}  # group -> the group that it was merged into (union-find)

    def root(group: int) -> int:
        while (parent := parents.get(group, group)) != group:
            group = parent
        return group

    _, first, place = np.unique(sortable(sha256), return_index=True, return_inverse=True)
    first = first[place]  # row of the first copy
    for row in np.flatnonzero(first != np.arange(len(first))).tolist():
        parents[root(groups.item(first[row]))] = root(groups.item(row))
    merged = groups[first]
    joined = np.array(sorted(parents), np.uint64)
    rows = np.flatnonzero(np.isin(merged, joined))
    roots = np.array([root(group) for group in joined.tolist()], np.uint64)
    merged[rows] = roots[np.searchsorted(joined, merged[rows])]
    return merged


def _compiled(pattern: str) -> re.Pattern[str]:
    try:
        return re.compile(pattern)
    except re.error as error:
        raise UsageError(
            f"--group-by {pattern}: near-duplicates, file, folder or a regular expression ({error})"
        ) from None


def near_duplicate_groups(records: Sequence[Record], own: bool = True) -> Column:
    """A group id for each record: equal for equal bytes and for near-duplicates.

    Near-duplicates (`near_duplicates.groups`) are the same photograph re-encoded, resized or
    re-framed on white, and the same photograph or cut recoloured, because its shape would leak
    too. The relation is transitive. The id is the smallest hash in the group, cut to 12 digits.
    Records of a prepared set keep their own group; added images may merge some. With `own=False`
    groups are found anew, as for a part of a set.
    """
    if own and isinstance(records, Records):
        if records.table.group is not None:
            return _with_added(records) if records.table.before else records.groups
    elif own and all(record.group is not None for record in records):
        return grouped([record.group for record in records])
    sha256 = hashes_of(records)
    _, rows, place = np.unique(sortable(sha256), return_index=True, return_inverse=True)
    number = near_duplicates.groups(descriptors_of(taken(records, rows)))
    _, first, own = np.unique(number, return_index=True, return_inverse=True)
    ids = grouped_by_hash(sha256)  # sorted by hash, the first row has the smallest one
    return ids.of(ids.values[rows[first[own]]][place])


def near_duplicates_of(new: Sequence[Record], known: Sequence[Record]) -> Bool[np.ndarray, " N"]:
    """Which of the new records are near-duplicates of known ones, also through other new ones."""
    # An image of few edges is a near-duplicate of no other, but equals itself.
    equal = rows_of_hashes(hashes_of(known), hashes_of(new)) >= 0
    return equal | are_alike(descriptors_of(new), descriptors_of(known))


def are_alike(new: Sequence[bytes], known: Sequence[bytes]) -> Bool[np.ndarray, " N"]:
    """Which new images are near-duplicates of known ones, by the descriptors of all."""
    near = np.zeros(len(new), bool)
    for _, own, others in _compared(new, known):
        near |= np.isin(own, others)
    return near


def _compared(
    new: Sequence[bytes], known: Sequence[bytes]
) -> Iterator[tuple[int, Int[np.ndarray, " N"], Int[np.ndarray, " M"]]]:
    """Compares new images with `_KNOWN` known ones at a time, to bound memory.

    Yields the row of the first of these known images, the group numbers of the new images, and
    those of the known ones. Near-duplicates have equal numbers.
    """
    new = list(new)
    for start in range(0, len(known) if new else 0, _KNOWN):
        group = near_duplicates.groups([*new, *known[start : start + _KNOWN]])
        yield start, group[: len(new)], group[len(new) :]


def _with_added(records: Records) -> Column:
    """The groups of a prepared set to which records were added.

    An added image may merge groups. The merged group keeps the name of one that the set had.
    """
    added = records.rows >= len(records.table.before.label)
    new, known = (records.take(np.flatnonzero(rows)) for rows in (added, ~added))
    own, groups = new.groups.values, known.groups.values
    pairs = [np.stack([own, own])]  # of groups that are one
    for start, number, numbers in _compared(descriptors_of(new), descriptors_of(known)):
        several, first = np.unique(number, return_index=True)
        near = np.flatnonzero(np.isin(numbers, several))
        for values, which in ((own, number), (groups[start + near], numbers[near])):
            pairs.append(np.stack([values, own[first[np.searchsorted(several, which)]]]))
    names, ends = np.unique(np.concatenate(pairs, axis=1), return_inverse=True)
    component = near_duplicates.connected(ends.T, len(names))
    order = np.lexsort([names, np.isin(names, own)])  # those of the set first
    _, first = np.unique(component[order], return_index=True)
    kept = names[order[first]][component]
    values = records.groups.values.copy()
    rows = np.flatnonzero(np.isin(values, names))
    values[rows] = kept[np.searchsorted(names, values[rows])]
    return records.groups.of(values)


class _Pairs(Sequence[tuple[Record, Record]]):
    """Pairs of records of a prepared set, which are made when asked for."""

    def __init__(self, records: Records, rows: Int[np.ndarray, "P 2"]):
        self._table, self._rows = records.table, rows

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, place: int | slice):
        if isinstance(place, slice):
            return [self[number] for number in range(len(self))[place]]
        first, second = self._rows[place].tolist()
        return self._table.record(first), self._table.record(second)


def near_duplicates_across(
    records: Sequence[Record], groups: Sequence[str], splits: Sequence[str]
) -> Sequence[tuple[Record, Record]]:
    """Pairs of near-duplicates that a folder's own splits separate.

    One pair for each image with a near-duplicate in a later split (train, val, test): the image,
    then its near-duplicate in the latest split.
    """
    if facts := facts_about(records, groups, splits):
        return _Pairs(records, facts.straddling)
    groups, number, none = grouped(groups), split_numbers(splits), ALL.index(LEFT_OUT)
    own = number[groups.runs.rows]
    rows = mixed(groups.runs, own, np.where(own == none, 0, own))  # in several splits: a few
    records, groups = taken(records, rows), tuple(groups.take(rows))
    splits = [ALL[k] for k in number[rows].tolist()]
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
) -> Sequence[tuple[Record, Record]]:
    """Pairs of near-duplicates with different labels; one label is probably wrong.

    One pair for each image whose class differs from the first image of its group.
    """
    if facts := facts_about(records, groups):
        return _Pairs(records, facts.mislabelled)
    groups = grouped(groups)
    own = labels_of(taken(records, groups.runs.rows))
    rows = mixed(groups.runs, own, own)  # in several classes: a few
    records, groups = taken(records, rows), tuple(groups.take(rows))
    first: dict[str, Record] = {}
    pairs = [
        (record, first.setdefault(group, record))
        for record, group in zip(records, groups, strict=True)
    ]
    return [(record, other) for record, other in pairs if record.label != other.label]


def near_duplicate_pairs(
    records: Records,
) -> tuple[Sequence[tuple[Record, Record]], Sequence[tuple[Record, Record]]]:
    """Near-duplicates of a prepared set in two splits, and those in two classes."""
    groups = records.groups
    across = near_duplicates_across(records, groups, records.splits)
    return across, near_duplicates_in_two_classes(records, groups)
