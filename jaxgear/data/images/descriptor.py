"""The descriptor of an image, used to find near-duplicates (data/splits/near_duplicates.py).

Two tiny grey thumbnails: of the whole frame, and of the content inside its near-white margins.
"""

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from jaxgear.data.images.letterboxing import ENOUGH, reduction

ROWS, COLUMNS = 16, 17
BYTES = 4 + 2 * ROWS * COLUMNS  # of a descriptor

# Part of the cache's version: raise it whenever the descriptor of an unchanged image would change.
VERSION = 6

_MARGIN = 220  # a channel below this is content; artefacts of strong JPEG compression are above it
_SPECKS = 0.01  # fraction of content pixels up to which a row or column still counts as margin
_CHANNELS = np.array([1, 1, 1, 0], np.uint8).view(np.uint32)
_SMALL = Image.Resampling.BILINEAR  # antialiased, and without overshoot, which would fake edges


def describe(rgb: UInt8[np.ndarray, "H W 3"]) -> bytes:
    """The descriptor: the size of the content and both thumbnails.

    u16 height and width (little endian, of the reduced image), then u8 [2, 16, 17] grey.
    """
    return describe_image(Image.fromarray(rgb))


def describe_image(image: Image.Image) -> bytes:
    """`describe` for an image in mode RGB."""
    if (factor := reduction(max(image.size), ENOUGH)) > 1:
        image = image.reduce(factor)
    content = _content(image)
    # A reduced image is at most 255 pixels wide and high, so the counts fit.
    rows = np.flatnonzero(content.sum(axis=1, dtype=np.uint8) > int(_SPECKS * image.width))
    columns = np.flatnonzero(content.sum(axis=0, dtype=np.uint8) > int(_SPECKS * image.height))
    grey = image.convert("L")
    whole = box = (0, 0, *grey.size)
    if rows.size and columns.size:
        box = (int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1)
    frame = grey.resize((COLUMNS, ROWS), _SMALL).tobytes()
    inside = frame if box == whole else grey.resize((COLUMNS, ROWS), _SMALL, box=box).tobytes()
    return np.array([box[3] - box[1], box[2] - box[0]], "<u2").tobytes() + frame + inside


def _content(image: Image.Image) -> UInt8[np.ndarray, "H W"]:
    """1 where a channel is below `_MARGIN`, else 0.

    Compares pixels as Pillow holds them, in four bytes, of which the last is not a channel: three
    quarters of the time of taking the channels apart.
    """
    octets = np.frombuffer(image.tobytes("raw", "RGBX"), np.uint8)
    below = (octets < _MARGIN).view(np.uint32) & _CHANNELS
    return (below != 0).view(np.uint8).reshape(image.height, image.width)
