"""Lists the image files of a data folder with their class and split, without opening them."""

import contextlib
import os
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from jaxgear.data.folder.names import PICTURE_NAME, left_by_system, split_of, splits_in_names
from jaxgear.errors import DataError
from jaxgear.text import printable, stable_key, text_of


@dataclass(frozen=True)
class Refused:
    """A file that should be an image but cannot be used, with the reason."""

    path: str  # POSIX, relative to the data folder
    reason: str


@dataclass(frozen=True, slots=True)
class Candidate:
    """A file that should be an image; it is not opened yet."""

    path: str  # POSIX, relative to the data folder
    name: str  # class name, NFC
    split: str | None  # "train", "val", "test", or None where the folder has no splits


@dataclass
class Listing:
    """The files of a data folder. `ignored`: hidden, system files, and files beside classes.

    `tables`: those in the folder that name its pictures, in place of class folders.
    """

    classes: set[str] = field(default_factory=set)  # NFC; also classes with only refused files
    candidates: list[Candidate] = field(default_factory=list)
    refused: list[Refused] = field(default_factory=list)
    ignored: list[str] = field(default_factory=list)
    tables: list[str] = field(default_factory=list)


def list_pictures(root: Path) -> Listing:
    """Lists `root/<class>/**`, or `root/{train,val,test}/<class>/**` with these splits.

    Each first-level folder is a class and holds all files below it. Other spellings of the splits
    are accepted (`names.split_of`). An empty class folder is refused and is no class. Symbolic
    links are followed; each real folder is visited once per class, so loops end. Everything is in
    `stable_key` order.

    Raises:
        DataError: no such folder, class names that differ only in case, or folders with names of
            splits in an unclear layout.
    """
    listing = Listing()
    folders = _class_folders(root, "", listing)
    splits = _splits(root, folders)
    for folder in folders:
        if not splits:
            _walk_class(root, folder, folder, None, listing)
            continue
        for name in _class_folders(root, folder + "/", listing):
            _walk_class(root, f"{folder}/{name}", name, splits[folder], listing)
    check_names(root, listing)
    listing.candidates.sort(key=lambda candidate: stable_key(candidate.path))
    listing.refused.sort(key=lambda refused: stable_key(refused.path))
    listing.ignored.sort(key=stable_key)
    return listing


def list_files(folder: Path) -> tuple[list[str], list[Refused]]:
    """Every visible file below a folder without classes, and the refused files.

    POSIX paths relative to the folder, in `stable_key` order. Links as in `list_pictures`.

    Raises:
        DataError: no such folder, or it cannot be listed.
    """
    _entries(folder)
    _identity(folder)
    listing = Listing()
    files = sorted(_files_below(folder, "", set(), listing), key=stable_key)
    return files, sorted(listing.refused, key=lambda refused: stable_key(refused.path))


def _splits(root: Path, folders: list[str]) -> dict[str, str]:
    """The split of each first-level folder; empty if the folders are classes.

    Raises:
        DataError: some are named like splits, but the layout is unclear.
    """
    contents = {name: _names_in(root / name) for name in folders}
    named = {name: split for name in folders if (split := split_of(name)) is not None}
    if named and len(named) == len(folders):
        for name, split in named.items():
            classes, files = contents[name]
            if not split:
                raise DataError(f"{root / name}: unclear split; rename it to train, val or test")
            if files and not classes:
                raise DataError(
                    f"{root / name}: a split without class folders; expected "
                    f"{root / name}/<class>/<pictures>, or move it elsewhere"
                )
        return named
    # A class may be called `train`: then it directly holds images.
    mixed = [
        name
        for name in named
        if contents[name][0] and not any(PICTURE_NAME.search(file) for file in contents[name][1])
    ]
    if mixed:
        other = next(name for name in folders if name not in mixed)
        raise DataError(
            f"{root}: holds splits ({', '.join(mixed)}) beside another folder ({other}); move the "
            "class folders into the splits (train, val, test), or rename the classes"
        )
    for name in folders:
        subfolders = {split: below for below in contents[name][0] if (split := split_of(below))}
        if "train" in subfolders and len(subfolders) > 1:
            raise DataError(
                f"{root / name}: holds the splits {', '.join(sorted(subfolders.values()))}; "
                f"expected the classes in the splits: {root}/train/<class>/<pictures>"
            )
    if pair := splits_in_names(folders):
        raise DataError(
            f"{root}: the folders {pair[0]} and {pair[1]} are named like splits of one class; "
            f"expected {root}/train/<class> and so on"
        )
    return {}


def _names_in(folder: Path) -> tuple[list[str], list[str]]:
    """Names of the visible folders and files in a folder; empty if it cannot be listed."""
    names: tuple[list[str], list[str]] = ([], [])
    with contextlib.suppress(DataError):
        for entry in _entries(folder):
            if not _is_hidden(entry):
                names[not _is_folder(entry)].append(entry.name)
    return names


def _class_folders(root: Path, prefix: str, listing: Listing) -> list[str]:
    """Names of the visible folders in `root/prefix`; other entries go to `ignored`."""
    names = []
    for entry in _entries(root / prefix):
        if _is_hidden(entry) or not _is_folder(entry):
            listing.ignored.append(text_of(prefix + entry.name))
        elif printable(entry.name) != entry.name:  # it would become a class name
            raise DataError(
                f"{root}: folder name {printable(entry.name)} holds control characters or is not "
                "UTF-8; rename it"
            )
        else:
            names.append(entry.name)
    return names


def _walk_class(root: Path, folder: str, name: str, split: str | None, listing: Listing) -> None:
    name = unicodedata.normalize("NFC", name)
    before, ignored = len(listing.candidates) + len(listing.refused), len(listing.ignored)
    for path in _files_below(root, folder, {_identity(root)}, listing):
        listing.candidates.append(Candidate(path, name, split))
    if len(listing.candidates) + len(listing.refused) == before:
        if folder in listing.ignored[ignored:]:  # a link back to the root: report it once
            listing.ignored.remove(folder)
        listing.refused.append(Refused(folder, "class folder without pictures; fill or remove it"))
    else:
        listing.classes.add(name)


def _files_below(
    root: Path, folder: str, seen: set[tuple[int, int]], listing: Listing
) -> Iterator[str]:
    """Yields file paths relative to `root`; other entries go to `refused` and `ignored`."""
    waiting = [folder]
    while waiting:
        current = waiting.pop()
        try:
            identity = _identity(root / current)
            entries = _entries(root / current)
        except DataError:  # no permission, or removed meanwhile
            listing.refused.append(Refused(current, "folder that cannot be listed"))
            continue
        if identity in seen:
            listing.ignored.append(current)
            continue
        seen.add(identity)
        for entry in entries:
            path = f"{current}/{entry.name}" if current else entry.name
            if _is_hidden(entry):
                listing.ignored.append(text_of(path))
            elif text_of(path) != path:
                listing.refused.append(Refused(text_of(path), "name that is not UTF-8"))
            elif not _is_folder(entry):
                yield path
            elif PICTURE_NAME.search(entry.name):
                listing.refused.append(Refused(path, "a folder, not a picture"))
            else:
                waiting.append(path)


def check_names(root: Path, listing: Listing) -> None:
    """Raises DataError if two class names differ only in case."""
    spellings: dict[str, str] = {}
    for name in sorted(listing.classes):
        first = spellings.setdefault(name.casefold(), name)
        if first != name:
            raise DataError(
                f"{root}: class folders {first} and {name} differ only in case; "
                "rename or merge them"
            )


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    """The entries of a folder, in stable order."""
    with _named(folder), os.scandir(folder) as entries:
        return sorted(entries, key=lambda entry: stable_key(entry.name))


def _is_hidden(entry: os.DirEntry[str]) -> bool:
    return left_by_system(entry.name, _is_folder(entry))


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a symbolic link to itself; opening it reports the error
        return False


def _identity(folder: Path) -> tuple[int, int]:
    with _named(folder):
        status = os.stat(f"{folder}{os.sep}.")  # noqa: PTH116 - the dot tests permission to enter
    return status.st_dev, status.st_ino


@contextlib.contextmanager
def _named(folder: Path) -> Iterator[None]:
    """Turns an OSError about a folder into a DataError."""
    try:
        yield
    except FileNotFoundError:
        raise DataError(f"{folder}: no such folder") from None
    except NotADirectoryError:
        raise DataError(f"{folder}: not a folder") from None
    except OSError as error:
        raise DataError(f"{folder}: cannot be listed: {error.strerror}") from None
