"""Fits a decoded image into a white square, as networks take it."""

import numpy as np
from jaxtyping import UInt8
from PIL import Image

# Pixels that a picture keeps on its longer side when it is decoded or averaged to be smaller. The
# same for all sizes of training pictures up to it, and for descriptors of near-duplicates: those,
# and so the split, must not depend on the size.
ENOUGH = 128


def letterbox(image: UInt8[np.ndarray, "H W 3"], size: int) -> UInt8[np.ndarray, "S S 3"]:
    """Fits the whole picture into a white square: aspect kept, centred, longer side = `size`.

    Small pictures are enlarged, so that an object fills the frame whatever its source. Large ones
    are averaged over squares of `reduction` pixels, and resized to the size from there: bicubic
    with antialiasing (Pillow widens the kernel by the factor). The shorter side is at least one
    pixel. u8 0-255 in and out.
    """
    return letterbox_image(Image.fromarray(image), size)


def letterbox_image(image: Image.Image, size: int) -> UInt8[np.ndarray, "S S 3"]:
    """`letterbox` of a picture in mode RGB."""
    scale = size / max(image.size)
    width, height = (max(1, round(side * scale)) for side in image.size)
    if (width, height) != image.size:
        factor = reduction(max(image.size), max(size, ENOUGH))
        part = (0, 0, image.width / factor, image.height / factor)  # the last squares are cut off
        small = image.reduce(factor) if factor > 1 else image
        image = small.resize((width, height), Image.Resampling.BICUBIC, part)
    top = (size - height) // 2
    left = (size - width) // 2
    square = np.full((size, size, 3), 255, np.uint8)
    square[top : top + height, left : left + width] = np.asarray(image)
    return square


def reduction(longer: int, least: int) -> int:
    """The largest power of two by which `longer` pixels can be divided that leaves `least`."""
    factor = 1
    while factor < longer and -(-longer // (2 * factor)) >= least:
        factor *= 2
    return factor
