"""Groups of pictures that must not be in two splits."""

import re
from collections.abc import Sequence

from jaxgear.data.folder import Record
from jaxgear.data.splits import near_duplicates
from jaxgear.errors import UsageError

NEAR_DUPLICATES, FILE, FOLDER = "near-duplicates", "file", "folder"


def groups_of(records: Sequence[Record], by: str = NEAR_DUPLICATES) -> list[str]:
    """A group id for each record; equal bytes are in one group, whatever else it is made by.

    Args:
        by: `near-duplicates` (as `near_duplicate_groups`); `file`: each by itself; `folder`: those
            in the same folder; else a regular expression that is searched in each path: those of
            the same first group in it, or the same match where it has none. A picture without a
            match is by itself.

    Raises:
        UsageError: not a regular expression, or none that matches a path.
    """
    if by == NEAR_DUPLICATES:
        return near_duplicate_groups(records)
    if by == FILE:
        return [record.sha256[:12] for record in records]
    pattern = _compiled(r"(.*)/" if by == FOLDER else by)
    found = [pattern.search(record.path) for record in records]
    if not any(found):
        raise UsageError(f"--group-by {by}: is in the name of no picture")
    first: dict[str, str] = {}  # a group's name -> that of the group that it was joined to
    of_bytes: dict[str, str] = {}

    def last(name: str) -> str:
        while (following := first.setdefault(name, name)) != name:
            name = following
        return name

    for record, match in zip(records, found, strict=True):
        name = last(match[(match.lastindex and 1) or 0] or "" if match else record.sha256[:12])
        first[last(of_bytes.setdefault(record.sha256, name))] = name
    return [last(of_bytes[record.sha256]) for record in records]


def _compiled(pattern: str) -> re.Pattern[str]:
    try:
        return re.compile(pattern)
    except re.error as error:
        raise UsageError(
            f"--group-by {pattern}: near-duplicates, file, folder or a regular expression ({error})"
        ) from None


def near_duplicate_groups(records: Sequence[Record]) -> list[str]:
    """A group id for each record: equal for equal bytes and for pictures that look alike.

    Alike is `near_duplicates.groups`: the same photograph re-encoded, resized or re-framed on
    white, and the same photograph or cut recoloured, whose shape would leak just as well. It is
    followed transitively. The id is the smallest hash in the group, cut to 12 digits. Where all
    records have a group of their own, of a prepared set, that is taken.
    """
    given = [record.group for record in records if record.group is not None]
    if len(given) == len(records):
        return given
    distinct = sorted({record.sha256: record for record in records}.values(), key=_by_hash)
    smallest: dict[int, str] = {}  # by group
    ids = {
        record.sha256: smallest.setdefault(group, record.sha256[:12])
        for record, group in zip(
            distinct, near_duplicates.groups([r.descriptor for r in distinct]).tolist(), strict=True
        )
    }
    return [ids[record.sha256] for record in records]


def _by_hash(record: Record) -> str:
    return record.sha256
