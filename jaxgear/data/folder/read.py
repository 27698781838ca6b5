"""Reads a folder of photographs: checked records, ordered classes and a fingerprint.

Every file is decoded completely first, so training never meets a bad image. The result is cached by
content, so a second start only hashes. Nothing is written under the folder.
"""

import hashlib
import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from jaxgear.data.crops import read_bytes
from jaxgear.data.folder.columns import fingerprint
from jaxgear.data.folder.lazy import LazyPictures, empty_shared
from jaxgear.data.folder.picture_cache import PictureCache, shrink
from jaxgear.data.folder.records import Record
from jaxgear.data.folder.walk import Candidate, Listing, Refused, list_files, list_pictures
from jaxgear.data.images import ImageError, load_letterboxed, load_rgb
from jaxgear.errors import DataError
from jaxgear.notebook.progress import counted
from jaxgear.paths import expanded
from jaxgear.text import printable, stable_key

HEAP = ""  # the only class of a folder without class folders

Checked = tuple[str, int, int, bytes]  # sha256, height, width and descriptor of an image


@dataclass(frozen=True)
class Folder:
    """A data folder that was read: its records, refused files and ignored files."""

    root: Path
    classes: tuple[str, ...]  # NFC, sorted as strings
    records: Sequence[Record]  # a tuple or `Records`, sorted by NFC path
    refused: tuple[Refused, ...]
    ignored: tuple[str, ...]
    fingerprint: str  # sha256 over class, NFC path and sha256 of every record
    # Pictures that corrections added: path of the record -> file outside `root`.
    added: Mapping[str, Path] = field(default_factory=dict, kw_only=True)
    tables: tuple[str, ...] = field(default=(), kw_only=True)  # `Listing.tables`
    # What corrections changed (data/labels/apply.py), for `splits.json`.
    changes: tuple[Mapping[str, str], ...] = field(default=(), kw_only=True)

    def cache_key(self, record: Record) -> str:
        """sha256 (hex) of the bytes that `read` returns."""
        return record.sha256

    def read(self, record: Record) -> bytes:
        """The stored bytes of one image; `DataError` if they changed since the check."""
        path = self.added.get(record.path, self.root / record.path)
        data = read_bytes(path, record.path)
        if hashlib.sha256(data).hexdigest() != record.sha256:
            raise DataError(f"{path}: changed since it was checked; start again")
        return data

    def load(self, record: Record) -> UInt8[np.ndarray, "H W 3"]:
        """One image decoded at full size."""
        return load_rgb(self.read(record), record.path)


def read_folder(
    root: str | os.PathLike[str],
    *,
    size: int = 128,
    min_classes: int = 2,
) -> Folder:
    """A data folder, listed and checked (layouts: `walk.list_pictures`).

    Each file is read, hashed and decoded once. It is also letterboxed at `size` and cached, so that
    `pixels(folder, size)` finds it there. Files that fail are in `refused`; `require_clean` handles
    them.

    Raises:
        DataError: no such folder, fewer than `min_classes` class folders, or a layout that
            `list_pictures` refuses.
    """
    root = Path(expanded(os.fspath(root)))
    return check_listing(root, list_pictures(root), size, min_classes)


def is_heap(root: str | os.PathLike[str]) -> bool:
    """Whether a folder holds files and no class folders; DataError as `list_pictures`."""
    listing = list_pictures(Path(expanded(os.fspath(root))))
    return bool(listing.ignored) and not listing.classes and not listing.refused


def read_heap(root: str | os.PathLike[str], *, size: int = 128) -> Folder:
    """`read_folder` for a folder without class folders: all pictures have the class `HEAP`.

    Raises:
        DataError: no such folder, or no usable picture in it.
    """
    root = Path(expanded(os.fspath(root)))
    files, refused = list_files(root)
    return check_heap(root, root, files, refused, size)


def check_heap(
    source: Path,
    root: Path,
    files: Sequence[str],
    refused: Sequence[Refused],
    size: int,
) -> Folder:
    """Files, or crops by their addresses, below `root` as a folder of one class, `HEAP`.

    Raises:
        DataError: `source`, which named them, names no usable picture.
    """
    candidates = [Candidate(path, HEAP, None) for path in files]
    listing = Listing(classes={HEAP}, candidates=candidates, refused=list(refused))
    folder = check_listing(root, listing, size, min_classes=1)
    if not folder.records:
        reasons = [f" ({printable(file.path)}: {file.reason})" for file in folder.refused[:1]]
        raise DataError(f"{source}: no usable picture{''.join(reasons)}")
    return folder


def check_listing(root: Path, listing: Listing, size: int, min_classes: int = 2) -> Folder:
    """The `Folder` of a listing: each file is read and decoded once, as in `read_folder`.

    A bar shows how many were read.
    """
    check = checker(PictureCache(size, outside=root))
    with ThreadPoolExecutor(os.cpu_count()) as pool:  # Pillow releases the GIL while it decodes
        results = pool.map(lambda c: check(root / c.path, c.path), listing.candidates)
        checked = list(counted(results, len(listing.candidates), "reading"))
    return assemble(root, listing, checked, min_classes)


def checker(store: PictureCache) -> Callable[[Path, str], Checked | Refused]:
    """A function of a file and its name that returns what `assemble` needs to know of it."""

    def check(file: Path, name: str) -> Checked | Refused:
        try:
            sha256, entry = store.decode(read_bytes(file, name), name)
        except ImageError as error:
            return Refused(name, error.reason)
        return sha256, entry.height, entry.width, entry.descriptor

    return check


def assemble(
    root: Path,
    listing: Listing,
    checked: Sequence[Checked | Refused],
    min_classes: int = 2,
) -> Folder:
    """The `Folder` of a listing and the results of checking its candidates.

    Args:
        checked: for each candidate its sha256, height, width and descriptor, or its refusal.

    Raises:
        DataError: fewer than `min_classes` class folders.
    """
    classes = class_names(root, listing, min_classes)
    labels = {name: label for label, name in enumerate(classes)}
    refused, records = [], []
    for candidate, result in zip(listing.candidates, checked, strict=True):
        if isinstance(result, Refused):
            refused.append(result)
        else:
            sha256, *rest = result
            label = labels[candidate.name]
            records.append(Record(candidate.path, sha256, label, candidate.split, *rest))
    return folder_of(root, listing, classes, tuple(records), refused)


def folder_of(
    root: Path,
    listing: Listing,
    classes: tuple[str, ...],
    records: Sequence[Record],
    refused: Sequence[Refused],
) -> Folder:
    """The `Folder` of a listing, the records of its usable files, and those refused since."""
    refused = sorted((*listing.refused, *refused), key=lambda file: stable_key(file.path))
    digest = fingerprint(classes, records)
    ignored, tables = tuple(listing.ignored), tuple(listing.tables)
    return Folder(root, classes, records, tuple(refused), ignored, digest, tables=tables)


def class_names(root: Path, listing: Listing, min_classes: int = 2) -> tuple[str, ...]:
    """The classes of a listing, in order; `DataError` if there are fewer than `min_classes`."""
    classes = tuple(sorted(listing.classes))
    if len(classes) < min_classes:
        raise DataError(
            f"{root}: {len(classes)} class folders with pictures ({', '.join(classes) or 'none'}), "
            f"at least {min_classes} needed; expected {root}/<class>/<pictures>"
        )
    return classes


def pixels(folder: Folder, size: int) -> UInt8[np.ndarray, "N S S 3"]:
    """All records letterboxed at `size`, in record order: u8 0-255 NHWC.

    Takes them from the cache, else decodes them (`DataError` if a file changed meanwhile).
    """
    store = PictureCache(size, outside=folder.root)
    out = empty_shared((len(folder.records), size, size, 3))

    def fill(index: int, record: Record) -> None:
        key = folder.cache_key(record)
        entry = store.get(key)
        if entry is None:
            entry = shrink(folder.read(record), record.path, size)
            store.put(key, entry)
        out[index] = entry.pixels

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(fill, range(len(out)), folder.records))  # raises the error of a thread
    return out


def stored_pictures(folder: Folder, size: int) -> LazyPictures:
    """The images that `pixels` returns, made on access: from the cache, else decoded."""
    store = PictureCache(size, outside=folder.root)

    def image(row: int) -> UInt8[np.ndarray, "S S 3"]:
        record = folder.records[row]
        if (entry := store.get(folder.cache_key(record))) is not None:
            return entry.pixels
        return load_letterboxed(folder.read(record), size, record.path)

    return LazyPictures((len(folder.records), size, size, 3), image)
