"""Which files of a data folder are meant as pictures, of which class and side; opens none."""

import os
import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from jaxgear.errors import DataError

SIDES = {"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}

_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029]")
_SYSTEM = {"thumbs.db", "desktop.ini", "ehthumbs.db", "$recycle.bin", "system volume information"}
_PICTURE_SUFFIXES = {
    ".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".avif",
}  # fmt: skip


@dataclass(frozen=True)
class Refused:
    """A file that was meant as a picture and cannot be used, and why."""

    path: str  # POSIX, relative to the data folder
    reason: str


@dataclass(frozen=True)
class Candidate:
    """A file that is meant as a picture; nobody has looked inside yet."""

    path: str  # POSIX, relative to the data folder
    name: str  # of its class, NFC
    side: str | None  # "train", "val", "test", or None where the folder has no sides


@dataclass
class Listing:
    """What a walk found. `ignored`: hidden and system files, and files beside class folders."""

    classes: set[str] = field(default_factory=set)  # NFC; also those with nothing but refused files
    candidates: list[Candidate] = field(default_factory=list)
    refused: list[Refused] = field(default_factory=list)
    ignored: list[str] = field(default_factory=list)


def stable_key(path: str) -> tuple[str, str]:
    """Sorts paths alike on every file system, whichever Unicode form it stores names in."""
    return unicodedata.normalize("NFC", path), path


def list_pictures(root: Path) -> Listing:
    """Walks `root/<class>/**`, or `root/{train,val,test}/<class>/**` whose sides are then kept.

    A class is a first-level folder; folders below it are only descended into. Symbolic links are
    followed, each real folder once a class, so loops end. Everything is in `stable_key` order.

    Raises:
        DataError: no such folder, a class folder without a picture, class names that differ in
            case alone, or side folders mixed with class folders.
    """
    listing = Listing()
    folders = _class_folders(root, "", listing)
    sides = [name for name in folders if name in SIDES]
    if sides and len(sides) == len(folders):
        for folder in folders:
            for name in _class_folders(root, folder + "/", listing):
                _walk_class(root, f"{folder}/{name}", name, SIDES[folder], listing)
    elif len(sides) > 1:
        other = next(name for name in folders if name not in SIDES)
        raise DataError(
            f"{root}: holds sides ({', '.join(sides)}) beside another folder ({other}); "
            "move the class folders into the sides, or rename the classes"
        )
    else:
        for name in folders:
            _walk_class(root, name, name, None, listing)
    _check_names(root, listing)
    listing.candidates.sort(key=lambda candidate: stable_key(candidate.path))
    listing.refused.sort(key=lambda refused: stable_key(refused.path))
    listing.ignored.sort(key=stable_key)
    return listing


def list_files(folder: Path) -> tuple[list[str], list[Refused]]:
    """Every visible file below a folder without classes, and what was refused; POSIX paths
    relative to it in `stable_key` order. Links and loops as in `list_pictures`.

    Raises:
        DataError: no such folder, or it cannot be listed.
    """
    _entries(folder)
    listing = Listing()
    files = sorted(_files_below(folder, "", set(), listing), key=stable_key)
    return files, sorted(listing.refused, key=lambda refused: stable_key(refused.path))


def _class_folders(root: Path, prefix: str, listing: Listing) -> list[str]:
    """Names of the visible folders in `root/prefix`; the rest goes to `ignored`."""
    names = []
    for entry in _entries(root / prefix):
        if _is_hidden(entry) or not _is_folder(entry):
            listing.ignored.append(text_of(prefix + entry.name))
        elif printable(entry.name) != entry.name:  # it would become the name of a class
            raise DataError(
                f"{root}: folder name {printable(entry.name)} holds control characters or is not "
                "UTF-8; rename it"
            )
        else:
            names.append(entry.name)
    return names


def _walk_class(root: Path, folder: str, name: str, side: str | None, listing: Listing) -> None:
    name = unicodedata.normalize("NFC", name)
    listing.classes.add(name)
    before = len(listing.candidates) + len(listing.refused)
    for path in _files_below(root, folder, {_identity(root)}, listing):
        listing.candidates.append(Candidate(path, name, side))
    if len(listing.candidates) + len(listing.refused) == before:
        raise DataError(f"{root / folder}: class folder without pictures; fill or remove it")


def _files_below(
    root: Path, folder: str, seen: set[tuple[int, int]], listing: Listing
) -> Iterator[str]:
    """Paths relative to `root`; what cannot be meant goes to `refused` and `ignored`."""
    waiting = [folder]
    while waiting:
        current = waiting.pop()
        identity = _identity(root / current)
        if identity in seen:
            listing.ignored.append(current)
            continue
        seen.add(identity)
        try:
            entries = _entries(root / current)
        except DataError:
            listing.refused.append(Refused(current, "folder that cannot be listed"))
            continue
        for entry in entries:
            path = f"{current}/{entry.name}" if current else entry.name
            if _is_hidden(entry):
                listing.ignored.append(text_of(path))
            elif text_of(path) != path:
                listing.refused.append(Refused(text_of(path), "name that is not UTF-8"))
            elif not _is_folder(entry):
                yield path
            elif Path(entry.name).suffix.lower() in _PICTURE_SUFFIXES:
                listing.refused.append(Refused(path, "a folder, not a picture"))
            else:
                waiting.append(path)


def _check_names(root: Path, listing: Listing) -> None:
    spelt: dict[str, str] = {}
    for name in sorted(listing.classes):
        first = spelt.setdefault(name.casefold(), name)
        if first != name:
            raise DataError(
                f"{root}: class folders {first} and {name} differ in case alone; "
                "rename or merge them"
            )


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    """What is in a folder, in stable order."""
    try:
        with os.scandir(folder) as entries:
            return sorted(entries, key=lambda entry: stable_key(entry.name))
    except FileNotFoundError:
        raise DataError(f"{folder}: no such folder") from None
    except NotADirectoryError:
        raise DataError(f"{folder}: not a folder") from None
    except OSError as error:
        raise DataError(f"{folder}: cannot be listed: {error.strerror}") from None


def _is_hidden(entry: os.DirEntry[str]) -> bool:
    """Hidden or a system's own. `_x` only as a folder: cameras name Adobe RGB files `_DSC1.JPG`."""
    if entry.name.startswith(".") or entry.name.lower() in _SYSTEM:
        return True
    return entry.name.startswith("_") and _is_folder(entry)


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a symbolic link to itself; whoever opens it will say so
        return False


def _identity(folder: Path) -> tuple[int, int]:
    status = folder.stat()
    return status.st_dev, status.st_ino


def text_of(path: str) -> str:
    """A name that can be encoded: bytes of a name that are no UTF-8 become `\\udcff`."""
    return path.encode("utf-8", "backslashreplace").decode("utf-8")


def printable(path: str) -> str:
    """`text_of` on one line and without what moves a terminal's cursor: a tab becomes `\\t`."""
    return _CONTROL.sub(lambda found: repr(found[0])[1:-1], text_of(path))
