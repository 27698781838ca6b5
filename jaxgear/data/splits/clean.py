"""Unusable files and conflicting copies: stop, or continue without them."""

from collections import defaultdict
from dataclasses import replace
from typing import Literal

import numpy as np

from jaxgear.data.folder import (
    Folder,
    Refused,
    fingerprint,
    labels_of,
    maybe_conflicting,
    rows_of_paths,
    taken,
)
from jaxgear.data.folder.names import SPLITS
from jaxgear.errors import DataError
from jaxgear.text import printable, stable_key

OnBad = Literal["stop", "skip"]

_LISTED = 20


def conflicts(folder: Folder) -> tuple[Refused, ...]:
    """Byte-identical copies that conflict: the records to drop, each with the reason.

    Of copies in two classes all are dropped, because the right class is unknown. Of copies in two
    of the folder's own splits only those in the evaluated split are kept (test, else val).
    """
    copies = defaultdict(list)
    for record in maybe_conflicting(folder.records):
        copies[record.sha256].append(record)
    dropped = []
    for same in copies.values():
        best = max(
            same, key=lambda record: SPLITS.index(record.split) if record.split in SPLITS else 0
        )
        for record in same:
            other = next((o for o in same if o.label != record.label), None)
            where = "in another class"
            if other is None and record.split != best.split:
                other, where = best, "in another split"
            if other is not None:
                dropped.append(
                    Refused(record.path, f"same bytes as {printable(other.path)}, {where}")
                )
    return tuple(sorted(dropped, key=lambda refused: stable_key(refused.path)))


def require_clean(folder: Folder, on_bad: OnBad = "stop") -> Folder:
    """The folder without refused files and `conflicts`, or an error that lists them.

    With "skip" the conflicting records move to `refused`, so records and refused still add up to
    all files.

    Raises:
        DataError: with "stop", any refused or conflicting file (the first line has the count, the
            next lines the names); with "skip", a class without a remaining image.
    """
    dropped = conflicts(folder)
    bad = (*folder.refused, *dropped)
    if not bad:
        return folder
    if on_bad == "stop":
        lines = [
            f"{folder.root}: {len(bad)} files cannot be used; repair or remove them, or "
            "continue without them (--on-bad skip)"
        ]
        lines += [f"  {printable(refused.path)}: {refused.reason}" for refused in bad[:_LISTED]]
        if len(bad) > _LISTED:
            more = len(bad) - _LISTED
            lines.append(f"  … and {more} more; run `python -m jaxgear check {folder.root}`")
        raise DataError("\n".join(lines))
    gone = rows_of_paths(folder.records, {refused.path for refused in dropped})
    records = taken(folder.records, np.delete(np.arange(len(folder.records)), gone))
    present = set(labels_of(records).tolist())
    for label, name in enumerate(folder.classes):
        if label not in present:
            raise DataError(f"{folder.root}: no usable picture is left of class {name}")
    return replace(
        folder,
        records=records,
        refused=bad,
        fingerprint=fingerprint(folder.classes, records),
    )
