"""Lays corrections over a folder: other labels, pictures kept out, pictures added."""

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path, PurePosixPath

import numpy as np
from jaxtyping import Bool, Int32

from jaxgear.data.crops import compressed_sha256, parted
from jaxgear.data.folder import (
    Folder,
    Listing,
    PictureCache,
    Record,
    Records,
    Refused,
    check_names,
    checker,
    fingerprint,
    first_eight,
    hashes_of,
    labels_of,
    rows_of_hashes,
    rows_of_paths,
    splits_and_labels,
)
from jaxgear.data.labels.corrections import (
    Correction,
    read_corrections,
    standing_with_places,
    summary,
)
from jaxgear.data.labels.label_studio import read_export
from jaxgear.text import few, stable_key

ADDED = "added/"  # before the names of pictures that corrections added


def read_labels(path: Path) -> tuple[Correction, ...]:
    """Corrections from a corrections file, or from an export of Label Studio (.json).

    Raises:
        DataError: as `read_corrections` and `read_export`.
    """
    return (read_export if path.suffix.lower() == ".json" else read_corrections)(path)


def corrected(
    folder: Folder,
    labels: Path,
    rows: Iterable[Correction],
    *,
    size: int,
    say: Callable[[str], None] = print,
) -> Folder:
    """`folder` with the corrections of a file (`with_corrections`).

    Args:
        labels: the file.
        rows: what `read_labels` read from it.
        say: gets a line on what changed, and one on rows that name no picture.
    """
    folder, unknown = with_corrections(folder, rows, labels.parent, size=size)
    say(f"{labels}: {summary(folder.changes)}")
    if unknown:
        names = few(row.path or row.sha256 for row in unknown)
        say(f"warning: {labels}: {len(unknown)} rows are about no picture of the set: {names}")
    return folder


def with_corrections(
    folder: Folder,
    corrections: Iterable[Correction],
    place: Path,
    *,
    size: int,
) -> tuple[Folder, list[Correction]]:
    """The folder as corrections say, and the rows that name no picture of it.

    A row is about every copy of its bytes. Of a picture that is in the set, "add" is a relabel.
    Any other added picture is read from its `path`: relative to `place`, else to the folder, else
    to the working directory; one that cannot be read, or has other bytes than the row says, is
    `refused`. It is stored as `added/<hash>-<name>`.

    Args:
        folder: checked, not yet cleaned or split.
        place: the folder of the corrections file.
        size: letterbox size of the images that will be needed.

    Raises:
        DataError: a label differs from a class only in case.
    """
    corrections, before = tuple(corrections), folder.records
    named = {number: before[number] for number in _named(before, corrections)}
    present = {record.sha256 for record in named.values()}
    paths = {record.path for record in named.values()}
    rows = standing_with_places(corrections, present)
    number_of = {(row.sha256, row.path): number for number, row in enumerate(rows)}
    by_sha256 = {row.sha256: row for row in rows if row.sha256}
    by_path = {row.path: row for row in rows if not row.sha256}
    new = [row for row in rows if row.action == "add" and row.sha256 not in present]
    new = [row for row in new if row.sha256 or row.path not in paths]

    kept, names, changes = np.ones(len(before), bool), {}, []
    for number, record in named.items():
        name = folder.classes[record.label]
        if about := [r for r in (by_sha256.get(record.sha256), by_path.get(record.path)) if r]:
            row = max(about, key=lambda row: (not row.by_program, number_of[row.sha256, row.path]))
            if row.action == "remove" or row.label != name:
                changes.append(row.change(record.path, name))
            names[number], kept[number] = row.label, row.action != "remove"
    store = PictureCache(size, outside=folder.root)
    added, files, refused, known = _read_new(folder, new, place, store)
    if (again := tuple(known.get(row, row) for row in corrections)) != corrections:
        return with_corrections(folder, again, place, size=size)
    changes += [row.change(record.path, "") for record, row in added]
    classes, labels = _relabelled(folder, kept, names, {row.label for _, row in added})
    check_names(place, Listing(classes=set(classes)))
    records = _labelled(before, labels, kept)
    if added:
        own_split = "train" if any(split for split, _ in splits_and_labels(before)) else None
        more = [replace(r, label=classes.index(row.label), split=own_split) for r, row in added]
        records = _with_others(records, more)
    unknown = [
        row
        for row in rows
        # A removed picture may be gone, but not changed: it would be trained on again.
        if row.action == "relabel" or (row.action == "remove" and row.sha256 and row.path in paths)
        if (row.sha256 not in present if row.sha256 else row.path not in paths)
    ]
    return (
        replace(
            folder,
            classes=classes,
            records=records,
            refused=(*folder.refused, *refused),
            fingerprint=fingerprint(classes, records),
            added=files,
            changes=tuple(changes),
        ),
        unknown,
    )


def _named(records: Sequence[Record], corrections: Sequence[Correction]) -> list[int]:
    """Rows, ascending, that corrections may name: only 8 bytes of a hash are compared."""
    hashes = {row.sha256 for row in corrections if row.sha256}
    paths = {row.path for row in corrections if not row.sha256 or row.action == "remove"}
    near = np.isin(first_eight(hashes_of(records)), first_eight(hashes))
    return np.union1d(np.flatnonzero(near), rows_of_paths(records, paths)).tolist()


def _relabelled(
    folder: Folder, kept: Bool[np.ndarray, " N"], names: Mapping[int, str], added: set[str]
) -> tuple[tuple[str, ...], Int32[np.ndarray, " N"]]:
    """The classes after corrections, and the label of each record of `folder`.

    A class that loses all of its pictures is gone, and removed pictures of it have label -1.

    Args:
        kept: which records are not removed.
        names: the classes that corrections give to records, by number.
        added: classes of added pictures.
    """
    labels = labels_of(folder.records)
    as_before = kept.copy()
    as_before[[*names]] = False
    used = {folder.classes[label] for label in np.unique(labels[as_before])} | added
    used |= {name for number, name in names.items() if kept[number]}
    emptied = {folder.classes[label] for label in np.unique(labels)} - used
    classes = tuple(sorted(used | (set(folder.classes) - emptied)))
    label_of = {name: label for label, name in enumerate(classes)}
    labels = np.array([label_of.get(name, -1) for name in folder.classes], np.int32)[labels]
    for number, name in names.items():
        labels[number] = label_of.get(name, -1)
    return classes, labels


def _labelled(
    records: Sequence[Record], labels: Int32[np.ndarray, " N"], kept: Bool[np.ndarray, " N"]
) -> Sequence[Record]:
    """The records that are kept, with other labels."""
    if isinstance(records, Records):
        label = records.table.label.copy()
        label[records.rows] = labels
        return Records(replace(records.table, label=label), records.rows[kept])
    rows = zip(records, labels.tolist(), kept.tolist(), strict=True)
    return tuple(replace(record, label=label) for record, label, keep in rows if keep)


def _with_others(records: Sequence[Record], new: Sequence[Record]) -> Sequence[Record]:
    """Records and new ones, sorted by path."""
    if isinstance(records, Records):
        return records.grown(new)
    return tuple(sorted((*records, *new), key=lambda record: stable_key(record.path)))


def added_file(path: str, place: Path, root: Path) -> Path:
    """The file (or crop) of an added picture: relative to `place`, else `root`, else to here."""
    files = [base / path for base in (place, root, Path())]
    return next((file for file in files if os.path.lexists(parted(str(file))[0])), files[0])


def _read_new(
    folder: Folder, rows: Sequence[Correction], place: Path, store: PictureCache
) -> tuple[
    list[tuple[Record, Correction]], dict[str, Path], list[Refused], dict[Correction, Correction]
]:
    """Records of added pictures with their rows, their files, those that cannot be used, and rows
    that name an image of the set by another path, with its hash.
    """
    check = checker(store)

    def read(row: Correction) -> tuple[Record, Path] | Refused:
        file = added_file(row.path, place, folder.root)
        result = check(file, row.path)
        if isinstance(result, Refused):
            return result
        sha256, *rest = result
        if row.sha256 not in ("", sha256) and row.sha256 != compressed_sha256(str(file)):
            return Refused(row.path, "has other bytes than its correction says")
        name = f"{ADDED}{sha256[:8]}-{PurePosixPath(row.path.replace(os.sep, '/')).name}"
        return Record(name, sha256, 0, None, *rest), file.absolute()

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        results = list(pool.map(read, rows))
    records, files, refused, known = [], {}, [], {}
    found = [result[0].sha256 for result in results if not isinstance(result, Refused)]
    places = rows_of_hashes(hashes_of(folder.records), found).tolist()
    own = {sha256 for sha256, place in zip(found, places, strict=True) if place >= 0}
    present = set()
    for result, row in zip(results, rows, strict=True):
        if isinstance(result, Refused):
            refused.append(result)
        elif result[0].sha256 in own:
            known[row] = replace(row, sha256=result[0].sha256)
        elif result[0].sha256 not in present:  # a row without a hash may name a copy
            present.add(result[0].sha256)
            records.append((result[0], row))
            files[result[0].path] = result[1]
    return records, files, refused, known
