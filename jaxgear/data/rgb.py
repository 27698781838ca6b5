"""A picture that Pillow has decoded, of any mode -> RGB uint8: upright and on white.

Band by band of rows: Pillow's conversions each make a picture of four bytes a pixel, and several
of them at once would take more than 1 GB for the largest that is read.
"""

from collections.abc import Callable, Iterator

import numpy as np
from jaxtyping import Shaped, UInt8
from PIL import Image

_ORIENTATION = 0x0112
_BAND = 1 << 20  # pixels

# EXIF orientation (EXIF 2.3, tag 0x0112) -> an upright picture as it is stored: a view of it.
_STORED: dict[int, Callable[[np.ndarray], np.ndarray]] = {
    2: lambda x: x[:, ::-1],
    3: lambda x: x[::-1, ::-1],
    4: lambda x: x[::-1],
    5: lambda x: x.transpose(1, 0, 2),
    6: lambda x: np.rot90(x, 1),
    7: lambda x: x[::-1, ::-1].transpose(1, 0, 2),
    8: lambda x: np.rot90(x, -1),
}


def to_rgb(image: Image.Image, *, deep_png: bool) -> UInt8[np.ndarray, "H W 3"]:
    """The pixels of a loaded image, as `images.load_rgb` describes them.

    Args:
        image: loaded; of it, `info["transparency"]` may be changed.
        deep_png: it is a PNG of 16 bits a channel.
    """
    key = image.info.get("transparency")
    if deep_png and key is not None and not image.mode.startswith("I"):
        # Pillow keeps the upper 8 bits of the 16 of a channel, but all 16 of the key colour
        image.info["transparency"] = tuple(v >> 8 for v in key)
    flat = _scaling(image) if image.mode.startswith("I") or image.mode == "F" else _on_white
    turn = orientation(image)
    height, width = image.height, image.width
    if turn >= 5:
        height, width = width, height
    upright = np.empty((height, width, 3), np.uint8)
    stored = _STORED.get(turn, lambda x: x)(upright)
    for rows, band in _bands(image):
        stored[rows] = flat(band)
    return upright


def orientation(image: Image.Image) -> int:
    """EXIF orientation 1 to 8; asked after loading: Pillow turns TIFF itself and drops the tag."""
    try:
        found = image.getexif().get(_ORIENTATION, 1)
    except Exception:  # the pixels are fine; a damaged EXIF block is no reason to refuse them
        return 1
    return found if found in _STORED else 1


def _bands(image: Image.Image) -> Iterator[tuple[slice, Image.Image]]:
    step = max(1, _BAND // image.width)
    if image.height <= step:
        yield slice(None), image
        return
    for top in range(0, image.height, step):
        bottom = min(top + step, image.height)
        yield slice(top, bottom), image.crop((0, top, image.width, bottom))


def _on_white(image: Image.Image) -> UInt8[np.ndarray, "H W 3"]:
    """Transparent parts composited on white."""
    if image.mode == "LAB":
        image = _lab_to_rgb(image)
    if image.mode in ("RGBa", "La"):
        image = image.convert(image.mode.upper())
    if image.has_transparency_data:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, (255, 255, 255, 255))
        image = Image.alpha_composite(white, image)
    return np.asarray(image.convert("RGB"))


def _scaling(image: Image.Image) -> Callable[[Image.Image], Shaped[np.ndarray, "H W 1"]]:
    """What turns bands of 16-bit, 32-bit and float grey into 8 bits.

    16 bits keep the upper byte, as Pillow does for 48-bit colour. 32-bit and float files do not say
    which value is white: it is taken as the smallest of 1 (float), 255, 65535 that covers the
    values, and anything else is stretched from its own minimum to its own maximum.
    """
    key = image.info.get("transparency")
    deep = image.mode.startswith("I;16")
    low, white = 0.0, 1.0
    if not deep:
        low, high = np.inf, -np.inf
        for _, band in _bands(image):
            values = np.asarray(band)
            if not np.isfinite(values).all():
                raise ValueError("values that are not finite")
            low, high = min(low, float(values.min())), max(high, float(values.max()))
        whites = [1.0, 255.0, 65535.0] if image.mode == "F" else [255.0, 65535.0]
        known = next((w for w in whites if high <= w), None)
        if low < 0 or known is None:
            white = max(high - low, 1.0)
        else:
            low, white = 0.0, known

    def scale(band: Image.Image) -> Shaped[np.ndarray, "H W 1"]:
        values = np.asarray(band)
        if deep:
            grey = (values >> 8).astype(np.uint8)
        else:
            grey = np.round((values.astype(np.float64) - low) * (255 / white)).astype(np.uint8)
        if isinstance(key, int):
            grey = np.where(values == key, np.uint8(255), grey)
        return grey[..., None]

    return scale


def _lab_to_rgb(image: Image.Image) -> Image.Image:
    from PIL import ImageCms  # needs littlecms, which not every Pillow has; LAB is rare

    lab, srgb = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
    return ImageCms.profileToProfile(image, lab, srgb, outputMode="RGB")
