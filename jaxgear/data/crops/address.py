"""The address of a crop, `PHOTOGRAPH#left,top,right,bottom`, and the bytes that it stands for.

Sides are fractions of the photograph's width and height, with four decimals. Such an address stands
wherever a path of a picture does: in tables, in a queue of review, in a corrections file.
"""

import hashlib
import math
import os
import re
from collections.abc import Mapping

import numpy as np
from jaxtyping import Float, UInt8

from jaxgear.data import images
from jaxgear.data.images import ImageError, encode_png, load_rgb, store_png

Box = tuple[float, float, float, float]  # left, top, right, bottom, 0 to 1
WHOLE: Box = (0.0, 0.0, 1.0, 1.0)
SIDES = ("left", "top", "right", "bottom")  # columns of a table of crops, beside `path`
_SIDE = r"([01]\.\d{4})"
_ADDRESS = re.compile(rf"(.+)#{_SIDE},{_SIDE},{_SIDE},{_SIDE}\Z", re.DOTALL)


def address(path: str, box: Box) -> str:
    """The address of a crop of the photograph at `path`."""
    return f"{path}#{','.join(f'{side:.4f}' for side in box)}"


def address_in(row: Mapping[str, str]) -> str | None:
    """The address of the crop in a row of a table; the path alone if its box covers all of it.

    None: not a valid box.
    """
    try:
        box = tuple(float(row[side]) for side in SIDES)
    except ValueError:
        return None
    if box == WHOLE:
        return row["path"]
    name = address(row["path"], box)
    return name if parted(name)[1] else None


def parted(path: str) -> tuple[str, Box | None]:
    """The photograph and the box of an address; any other path, and None."""
    match = _ADDRESS.match(path)
    if not match or os.path.lexists(path):  # a file may be named so
        return path, None
    left, top, right, bottom = (float(side) for side in match.groups()[1:])
    if not (left < right <= 1 and top < bottom <= 1):
        return path, None
    return match[1], (left, top, right, bottom)


def file_name(path: str) -> str:
    """The name of a file that holds the picture of a path: of a crop, `PHOTOGRAPH_SIDES.png`."""
    photograph, box = parted(path)
    name = os.path.basename(photograph)  # noqa: PTH119 - for each picture
    return name if box is None else "_".join([name, *(f"{side:.4f}" for side in box)]) + ".png"


def rounded(box: Float[np.ndarray, "4"]) -> Box:
    """The box as its address has it."""
    left, top, right, bottom = (round(float(side), 4) for side in box)
    return left, top, right, bottom


def crop(photograph: UInt8[np.ndarray, "H W 3"], box: Box) -> bytes:
    """A PNG file of the pixels that a box touches, at least one; without compression, so that its
    hash is the same on every machine.
    """
    return store_png(_pixels(photograph, box))


def _pixels(photograph: UInt8[np.ndarray, "H W 3"], box: Box) -> UInt8[np.ndarray, "h w 3"]:
    height, width = photograph.shape[:2]
    left, top, right, bottom = box
    columns = _span(left, right, width)
    rows = _span(top, bottom, height)
    return np.ascontiguousarray(photograph[rows, columns])


def _span(start: float, end: float, length: int) -> slice:
    first = min(math.floor(round(start * length, 6)), length - 1)
    return slice(first, max(first + 1, math.ceil(round(end * length, 6))))


def read_bytes(path: str | os.PathLike[str], name: str) -> bytes:
    """`images.read_bytes`, also for the address of a crop; then a PNG.

    Raises:
        ImageError: as `images.read_bytes`, and the photograph of a crop cannot be decoded.
    """
    photograph, box = parted(os.fspath(path))
    data = images.read_bytes(photograph, name)
    if box is None:
        return data
    try:
        return crop(load_rgb(data, photograph), box)
    except ImageError as error:
        raise ImageError(name, error.reason) from error


def sha256(path: str, name: str) -> str:
    """The hash (hex) of the bytes that `read_bytes` gives; raises as it does."""
    return hashlib.sha256(read_bytes(path, name)).hexdigest()


def compressed_sha256(path: str) -> str:
    """The hash (hex) that a crop had in corrections until 2026-11-30, which depends on the machine;
    "" of another path. Raises `ImageError` as `read_bytes`.
    """
    photograph, box = parted(path)
    if box is None:
        return ""
    pixels = load_rgb(images.read_bytes(photograph, path), path)
    return hashlib.sha256(encode_png(_pixels(pixels, box))).hexdigest()
