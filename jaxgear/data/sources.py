"""What a person names (files, folders, patterns) or hands over -> paths, and pictures in memory."""

import glob
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from jaxgear.data.folder import Refused, list_files
from jaxgear.data.images import ImageError, rgb
from jaxgear.data.images.threads import quiet_pillow
from jaxgear.errors import DataError
from jaxgear.paths import expanded
from jaxgear.text import stable_key

_PATTERN = re.compile(r"[*?\[]")


@dataclass(frozen=True, eq=False)
class InMemory:
    """A picture that was handed over, not named."""

    name: str
    content: bytes | np.ndarray | Image.Image  # an encoded file, u8 [H, W, 3], or Pillow's


def find_pictures(sources: Any) -> list[Path | Refused | InMemory]:
    """Files as named, every visible file below folders, what patterns match (`**` too), and
    pictures as they are handed over: Pillow's, u8 [H, W, 3] arrays, bytes of a file, or a binary
    file, which is read from its start. One source need not be in a list.

    A path that is met again is left out. A file that is not there stays in the list: whoever opens
    it says so, and the others are not lost for it. In the order of `sources`, and below a folder or
    pattern in that of `stable_key`.

    Raises:
        DataError: a folder without files, or a pattern that nothing matches.
        UsageError: as `expanded`.
        TypeError: a source that is none of these.
    """
    found: dict[str | int, Path | Refused | InMemory] = {}
    for number, source in enumerate(_listed(sources), 1):
        if not isinstance(source, str | os.PathLike):
            found[number] = InMemory(f"<picture {number}>", _content(source))
            continue
        source = expanded(os.fspath(source))
        here = list(_expand(source))
        if not here:
            what = "no pictures in this folder" if _is_folder(source) else "matches no file"
            raise DataError(f"{source}: {what}; name pictures, or folders of them")
        for one in here:
            path = one.path if isinstance(one, Refused) else one
            found.setdefault(os.path.normpath(Path(path).absolute()), one)
    return list(found.values())


def _listed(sources: Any) -> Iterable[Any]:
    """`sources`, in a list where it is one."""
    single = isinstance(sources, str | os.PathLike | bytes | bytearray | memoryview | Image.Image)
    if isinstance(sources, np.ndarray):  # not one of names, and not several pictures
        single = sources.dtype.kind in "biuf" and sources.ndim <= 3
    if single or hasattr(sources, "read"):
        return [sources]
    if not isinstance(sources, Iterable):
        raise _unfit(type(sources).__name__)
    return sources


def _content(source: Any) -> bytes | np.ndarray | Image.Image:
    """A picture that was handed over, as `InMemory` has it."""
    if hasattr(source, "read"):
        if hasattr(source, "seek") and source.seekable():  # written a moment ago, and not rewound
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


def _unfit(what: str) -> TypeError:
    return TypeError(
        f"{what}: neither a path nor a picture; pictures are paths, PIL images, uint8 [H, W, 3] "
        "arrays, bytes of a file, or files opened in binary mode"
    )


def to_rgb(
    picture: UInt8[np.ndarray, "H W 3"] | Image.Image, name: str
) -> UInt8[np.ndarray, "H W 3"]:
    """The pixels of a picture in memory, as `images.load_rgb` has those of a file.

    Raises:
        ImageError: Pillow had only opened it, and cannot decode it.
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
        yield from (Refused(str(path / one.path), one.reason) for one in refused)
    elif os.path.lexists(source) or not _PATTERN.search(source):
        yield path
    else:
        pattern = _below_what_is_there(path)
        for match in sorted(glob.glob(pattern, recursive=True), key=stable_key):  # noqa: PTH207
            yield from _expand(match)


def _is_folder(path: str) -> bool:
    """False also for what may not be looked at (`Path.is_dir` raises): whoever opens it says so."""
    return os.path.isdir(path)  # noqa: PTH112


def _below_what_is_there(pattern: Path) -> str:
    """A pattern whose first folders are names where there are such, whatever brackets they have."""
    for folder in pattern.parents:  # the longest first
        if folder.is_dir():
            rest = pattern.relative_to(folder)
            return str(Path(glob.escape(str(folder)), rest))
    return str(pattern)
