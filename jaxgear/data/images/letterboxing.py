"""Fits a decoded image into a white square, the input of networks."""

import numpy as np
from jaxtyping import UInt8
from PIL import Image

# Pixels that the longer side keeps when an image is decoded or averaged at reduced size. The same
# for descriptors and for all training sizes up to it, because near-duplicates, and so the split,
# must not depend on the size.
ENOUGH = 128


def letterbox(image: UInt8[np.ndarray, "H W 3"], size: int) -> UInt8[np.ndarray, "S S 3"]:
    """The whole image in a white square: aspect kept, centred, longer side = `size`.

    Small images are enlarged, so that the object always fills the frame. Large images are first
    averaged over squares of `reduction` pixels, then resized: bicubic with antialiasing (Pillow
    widens the kernel by the factor). The shorter side is at least one pixel. u8 0-255 in and out.
    """
    return letterbox_image(Image.fromarray(image), size)


def letterbox_image(image: Image.Image, size: int) -> UInt8[np.ndarray, "S S 3"]:
    """`letterbox` for an image in mode RGB."""
    scale = size / max(image.size)
    width, height = (max(1, round(side * scale)) for side in image.size)
    if (width, height) != image.size:
        factor = reduction(max(image.size), max(size, ENOUGH))
        part = (0, 0, image.width / factor, image.height / factor)  # the last squares are partial
        small = image.reduce(factor) if factor > 1 else image
        image = small.resize((width, height), Image.Resampling.BICUBIC, part)
    top = (size - height) // 2
    left = (size - width) // 2
    square = np.full((size, size, 3), 255, np.uint8)
    square[top : top + height, left : left + width] = np.asarray(image)
    return square


def reduction(longer: int, least: int) -> int:
    """The largest power of two that divides `longer` pixels into at least `least`."""
    factor = 1
    while factor < longer and -(-longer // (2 * factor)) >= least:
        factor *= 2
    return factor
