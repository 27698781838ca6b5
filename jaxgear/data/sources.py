"""Sets and images that a user names: `--data SOURCE` -> `Folder`; files, folders, patterns and
images in memory -> a list.
"""

import contextlib
import glob
import os
import re
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from jaxgear.cache import user_cache
from jaxgear.data.crops import crops_in
from jaxgear.data.folder import (
    Folder,
    Refused,
    check_heap,
    check_listing,
    is_heap,
    list_files,
    read_folder,
    read_heap,
)
from jaxgear.data.images import ImageError, rgb
from jaxgear.data.images.threads import quiet_pillow
from jaxgear.data.labels import as_named, fetched_any, list_source
from jaxgear.data.labels.tables import tables_in
from jaxgear.data.synthetic import CLASSES, write_drawn
from jaxgear.errors import DataError
from jaxgear.paths import expanded, is_address
from jaxgear.text import stable_key

PHOTOGRAPHS = Path("data/gear_images")  # where `jaxgear get gear` puts them
DRAWN = 600  # images in the drawn set by default: training takes two to five minutes

_PATTERN = re.compile(r"[*?\[]")


def read_source(
    source: str, size: int, min_classes: int = 2, share: tuple[int, int] = (0, 1)
) -> Folder:
    """The set that `--data SOURCE` (not empty) names: checked, not yet cleaned or split.

    `share` is that of `read_tfds`.

    Raises:
        DataError: as `list_source`, `read_folder` and `read_tfds`.
    """
    if source.startswith("tfds:"):
        # Imported when needed: tensorflow-datasets takes most of a second.
        from jaxgear.data.tfds.read import read_tfds

        place = source.removeprefix("tfds:")
        return read_tfds(place, size=size, min_classes=min_classes, share=share)
    if source.split(":")[0] == "drawn":
        # The one hidden file is our own, so do not report it.
        return replace(read_folder(drawn_set(source), size=size), ignored=())
    root, listing = list_source(source)
    with as_named(source, root):
        return check_listing(root, listing, size, min_classes=min_classes)


def read_new(source: str, size: int) -> Folder:
    """New images, with or without class folders: a heap of files, a table of crops (`crops_in`), or
    what `read_source` takes. Classes in a table of crops are predictions, so they are not read.

    Raises:
        DataError: as `read_heap`, `crops_in` and `read_source`.
    """
    place = None if is_address(source) else Path(expanded(os.fspath(source)))
    if place and (crops := crops_in(place)) is not None:
        return _read_crops(place, crops, size)
    if place and place.is_dir() and not tables_in(place) and is_heap(place):
        return read_heap(place, size=size)
    return read_source(source, size, min_classes=1)


def _read_crops(table: Path, crops: Iterable[str], size: int) -> Folder:
    """The crops that a table names, as a heap in the folder that holds their photographs."""
    places = {Path(crop).absolute() for crop in crops}
    root = Path(os.path.commonpath({place.parent for place in places} or {table.parent.absolute()}))
    files = sorted((place.relative_to(root).as_posix() for place in places), key=stable_key)
    return check_heap(table, root, files, (), size)


def default_source() -> str:
    """The source of an empty `--data`: the photographs where `get_gear` puts them, else `drawn`."""
    return str(PHOTOGRAPHS) if PHOTOGRAPHS.is_dir() else "drawn"


def drawn_set(source: str) -> Path:
    """The folder of `drawn` or `drawn:COUNT`; draws the set unless it is in the cache."""
    _, _, number = source.partition(":")
    if number and (not number.isdigit() or int(number) < len(CLASSES)):
        raise DataError(f"--data {source}: expected drawn:COUNT, as in drawn:{DRAWN}")
    count = int(number or DRAWN)
    if cache := user_cache():
        with contextlib.suppress(DataError):  # cache not writable: use a temporary folder
            return write_drawn(cache / f"drawn-{count}", count)
    return write_drawn(Path(tempfile.mkdtemp(prefix="jaxgear-")) / "drawn", count)


@dataclass(frozen=True, eq=False)
class InMemory:
    """An image given as an object, not as a path."""

    name: str
    content: bytes | np.ndarray | Image.Image  # an encoded file, u8 [H, W, 3], or a Pillow image


def find_pictures(sources: Any) -> list[Path | Refused | InMemory]:
    """The images that `sources` name or hold: a path for each file, an `InMemory` for each object.

    A path to a file counts as it is. A folder gives every visible file below it, a pattern (`**`
    too) every match, a table of crops (`crops_in`) its crops. Objects are Pillow images, u8
    [H, W, 3] arrays, bytes of a file, or binary files, which are read from their start. A single
    source need not be in a list.

    The order is that of `sources`, and below a folder or pattern that of `stable_key`. Repeated
    paths are left out. A missing file stays in the list: opening it reports the error, and the
    other images are still used.

    Raises:
        DataError: a folder without files, or a pattern without a match.
        UsageError: as `expanded`.
        TypeError: a source of another type.
    """
    images: dict[str | int, Path | Refused | InMemory] = {}
    for number, source in enumerate(_listed(sources), 1):
        if not isinstance(source, str | os.PathLike):
            images[number] = InMemory(f"<picture {number}>", _content(source))
            continue
        source = expanded(os.fspath(source))
        files = list(_expand(source))
        if not files:
            reason = "no pictures in this folder" if _is_folder(source) else "matches no file"
            reason = "names no crop" if Path(source).is_file() else reason
            raise DataError(f"{source}: {reason}; name pictures, or folders of them")
        for file in files:
            path = file.path if isinstance(file, Refused) else file
            images.setdefault(os.path.normpath(Path(path).absolute()), file)
    return list(images.values())


def local_copies(sources: Iterable[str]) -> tuple[list[str], dict[str, str]]:
    """Sources with copies in the user's cache in place of addresses, and the address of each copy.

    Raises:
        UsageError, DataError: an address cannot be read.
    """
    places = {source: str(fetched_any(source)) for source in sources if is_address(source)}
    addresses = {place: source.rstrip("/") for source, place in places.items()}
    return [places.get(source, source) for source in sources], addresses


def _listed(sources: Any) -> Iterable[Any]:
    """`sources` as an iterable: a single source goes into a list."""
    single = isinstance(sources, str | os.PathLike | bytes | bytearray | memoryview | Image.Image)
    if isinstance(sources, np.ndarray):  # arrays of names and batches of images are iterated
        single = sources.dtype.kind in "biuf" and sources.ndim <= 3
    if single or hasattr(sources, "read"):
        return [sources]
    if not isinstance(sources, Iterable):
        raise _unfit(type(sources).__name__)
    return sources


def _content(source: Any) -> bytes | np.ndarray | Image.Image:
    """The content of `InMemory` for an object."""
    if hasattr(source, "read"):
        if hasattr(source, "seek") and source.seekable():  # it may have been written just now
            source.seek(0)
        source = source.read()
    if isinstance(source, bytearray | memoryview):
        return bytes(source)
    if isinstance(source, bytes | Image.Image):
        return source
    if not isinstance(source, np.ndarray):
        raise _unfit(type(source).__name__)
    if source.dtype != np.uint8 or source.shape[2:] != (3,) or not source.size:
        raise _unfit(f"an array of {source.dtype} {list(source.shape)}")
    return source


def _unfit(kind: str) -> TypeError:
    return TypeError(
        f"{kind}: neither a path nor a picture; pictures are paths, PIL images, uint8 [H, W, 3] "
        "arrays, bytes of a file, or files opened in binary mode"
    )


def to_rgb(
    picture: UInt8[np.ndarray, "H W 3"] | Image.Image, name: str
) -> UInt8[np.ndarray, "H W 3"]:
    """The pixels of an image in memory, in the form that `images.load_rgb` returns.

    Raises:
        ImageError: Pillow opened the image but cannot decode it.
    """
    if isinstance(picture, np.ndarray):
        return picture
    try:
        with quiet_pillow():
            picture.load()
            return rgb.to_array(rgb.upright(picture, deep_png=False))
    except (OSError, SyntaxError, ValueError) as error:
        raise ImageError(name, f"damaged picture ({error})") from error


def _expand(source: str) -> Iterable[Path | Refused]:
    path = Path(source)
    if _is_folder(source):
        files, refused = list_files(path)
        yield from (path / name for name in files)
        yield from (Refused(str(path / file.path), file.reason) for file in refused)
    elif (crops := crops_in(path)) is not None:
        yield from map(Path, crops)
    elif os.path.lexists(source) or not _PATTERN.search(source):
        yield path
    else:
        pattern = _escaped(path)
        for match in sorted(glob.glob(pattern, recursive=True), key=stable_key):  # noqa: PTH207
            yield from _expand(match)


def _is_folder(path: str) -> bool:
    """False also without permission to look (`Path.is_dir` raises); opening reports that."""
    return os.path.isdir(path)  # noqa: PTH112


def _escaped(pattern: Path) -> str:
    """A glob pattern in which existing leading folders are literal, brackets included."""
    for folder in pattern.parents:  # the longest first
        if folder.is_dir():
            rest = pattern.relative_to(folder)
            return str(Path(glob.escape(str(folder)), rest))
    return str(pattern)
