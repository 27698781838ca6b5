"""Which new pictures may be labelled: readable, unlike those of the run, and unlike each other."""

import os
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

from jaxgear.bundle import Bundle
from jaxgear.data.folder import HEAP, Folder, PictureCache, Record, Refused, checker
from jaxgear.data.labels import Correction, added_file
from jaxgear.data.splits import are_alike, near_duplicates
from jaxgear.notebook.progress import counted
from jaxgear.text import stable_key


@dataclass(frozen=True)
class Candidates:
    """New pictures that may be labelled, and the number of those that may not."""

    folder: Folder  # its records: the candidates, by hash; its refused files: the unreadable ones
    readable: int
    known: int  # readable images that are in the run's data, or near-duplicates of it
    labelled: int  # of the others, those with a label and near-duplicates of them
    alike: int  # of the others, those that are near-duplicates or copies of a candidate


def find_candidates(
    files: Sequence[Path | Refused],
    bundle: Bundle,
    descriptors: Sequence[bytes] = (),
    labels: Iterable[Correction] = (),
    place: Path = Path(),
) -> Candidates:
    """Reads all files, and leaves out what is no candidate. A bar shows how many were read.

    Of near-duplicates the one with the smallest hash stays, whatever the order of `files`. A record
    has the path that its file has in `files`.

    Args:
        bundle: of the run. It knows the hashes of the pictures in its data.
        descriptors: of these pictures, to find near-duplicates of them.
        labels: rows of a corrections file, whatever they say.
        place: the folder of that file.
    """
    folder = _read(files, bundle.size)
    first: dict[str, Record] = {}  # of the copies of a file
    for record in folder.records:
        first.setdefault(record.sha256, record)
    records = [first[sha256] for sha256 in sorted(first)]
    new = [record.descriptor for record in records]
    groups = near_duplicates.groups(new)
    group_of = dict(zip((record.sha256 for record in records), groups.tolist(), strict=True))
    ours = {group_of[sha256] for sha256 in group_of if bundle.split_of(sha256)}
    ours.update(groups[are_alike(new, descriptors)].tolist())
    done = {group_of[sha256] for sha256 in _labelled(folder, labels, place)} - ours
    chosen: dict[int, Record] = {}  # by group
    for record in records:
        if group_of[record.sha256] not in ours | done:
            chosen.setdefault(group_of[record.sha256], record)
    of_each = [group_of[record.sha256] for record in folder.records]
    return Candidates(
        folder=replace(folder, records=tuple(chosen.values())),
        readable=len(of_each),
        known=sum(group in ours for group in of_each),
        labelled=sum(group in done for group in of_each),
        alike=sum(group in chosen for group in of_each) - len(chosen),
    )


def _read(files: Sequence[Path | Refused], size: int) -> Folder:
    """The files as a folder without classes, each read and decoded once."""
    paths = sorted(
        (file for file in files if isinstance(file, Path)), key=lambda file: stable_key(str(file))
    )
    above = {os.path.dirname(os.path.abspath(path)) for path in paths}  # noqa: PTH100, PTH120
    root = Path(os.path.commonpath(above)) if above else Path()
    check = checker(PictureCache(size, outside=root))
    records, refused = [], [file for file in files if isinstance(file, Refused)]
    with ThreadPoolExecutor(os.cpu_count()) as pool:  # Pillow releases the GIL while it decodes
        results = pool.map(lambda path: check(path, str(path)), paths)
        for path, result in zip(paths, counted(results, len(paths), "reading"), strict=True):
            if isinstance(result, Refused):
                refused.append(result)
            else:
                sha256, *rest = result
                records.append(Record(str(path), sha256, 0, None, *rest))
    return Folder(
        root=root,
        classes=(HEAP,),
        records=tuple(records),
        refused=tuple(sorted(refused, key=lambda file: stable_key(file.path))),
        ignored=(),
        fingerprint="",
        added={str(path): path for path in paths},  # they count from the working directory
    )


def _labelled(folder: Folder, labels: Iterable[Correction], place: Path) -> set[str]:
    """Hashes of the pictures that corrections name, by hash or else by path."""
    hashes, paths = set(), set()
    for row in labels:
        if row.sha256:
            hashes.add(row.sha256)
        else:
            paths.add(os.path.abspath(added_file(row.path, place, folder.root)))  # noqa: PTH100
    return {
        record.sha256
        for record in folder.records
        if record.sha256 in hashes or os.path.abspath(record.path) in paths  # noqa: PTH100
    }
