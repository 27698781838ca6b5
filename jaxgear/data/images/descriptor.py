"""The descriptor of an image, by which near-duplicates are found (data/splits/near_duplicates.py).

Two tiny grey thumbnails: of the whole frame, and of the content inside its near-white margins.
"""

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from jaxgear.data.images.letterboxing import ENOUGH, reduction

ROWS, COLUMNS = 16, 17

# Part of the cache's version: raise it whenever the same picture would get another descriptor.
VERSION = 6


_MARGIN = 220  # a channel below this is content: what a strong JPEG leaves around edges is not


_SPECKS = 0.01  # of a row or column may be content and it still counts as margin


_RGB = np.array([1, 1, 1, 0], np.uint8).view(np.uint32)  # without X, which is not always white


_SMALL = Image.Resampling.BILINEAR  # antialiased, and without the overshoot that fakes edges


def describe(rgb: UInt8[np.ndarray, "H W 3"]) -> bytes:
    """The descriptor: shape of the content and both thumbnails.

    u16 height and width (little endian, of the reduced picture), then u8 [2, 16, 17] grey.
    """
    return describe_image(Image.fromarray(rgb))


def describe_image(image: Image.Image) -> bytes:
    """`describe` of a picture in mode RGB."""
    if (factor := reduction(max(image.size), ENOUGH)) > 1:
        image = image.reduce(factor)
    content = _content(image)
    in_row = content.sum(axis=1, dtype=np.uint16)  # a reduced picture has at most 255 pixels a side
    in_column = content.sum(axis=0, dtype=np.uint16)
    rows = np.flatnonzero(in_row / image.width > _SPECKS)
    columns = np.flatnonzero(in_column / image.height > _SPECKS)
    grey = image.convert("L")
    whole = box = (0, 0, *grey.size)
    if rows.size and columns.size:
        box = (int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1)
    frame = grey.resize((COLUMNS, ROWS), _SMALL).tobytes()
    inside = frame if box == whole else grey.resize((COLUMNS, ROWS), _SMALL, box=box).tobytes()
    return np.array([box[3] - box[1], box[2] - box[0]], "<u2").tobytes() + frame + inside


def _content(image: Image.Image) -> UInt8[np.ndarray, "H W"]:
    """1 where a channel is below `_MARGIN`, else 0.

    All channels of a pixel are looked at as one number: half the time of Pillow's darkest channel.
    """
    dark = np.frombuffer(image.tobytes("raw", "RGBX"), np.uint8) < _MARGIN
    content = (dark.view(np.uint32) & _RGB) != 0
    return content.reshape(image.height, image.width).view(np.uint8)
