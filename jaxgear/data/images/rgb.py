"""Converts a decoded Pillow image of any mode to RGB: upright and on white.

Large images are converted in bands of rows. Each of Pillow's conversions makes an image of four
bytes a pixel, and several at once would take over 1 GB for the largest images.
"""

from collections.abc import Callable, Iterator

import numpy as np
from jaxtyping import UInt8
from PIL import Image

_ORIENTATION = 0x0112
_BITS, _PLANES = 258, 284  # tags of TIFF
_BAND = 1 << 20  # pixels
# Possible values of white: 8, 10, 12, 14 and 16 bits. Cameras and scanners with fewer bits than
# the file use its lower bits.
_WHITES = (255.0, 1023.0, 4095.0, 16383.0, 65535.0)

_UPRIGHT = {  # EXIF orientation -> turn that makes the pixels upright (EXIF 2.3, tag 0x0112)
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_FROM_THE_END = (3, 4, 6, 7)  # the first stored row is the last row or column
SIDEWAYS = (5, 6, 7, 8)  # stored rows are columns


def upright(image: Image.Image, *, deep_png: bool) -> Image.Image:
    """The RGB image that `images.load_rgb` describes; `image` itself if nothing has to change.

    Args:
        image: loaded; its `info["transparency"]` may be changed.
        deep_png: it is a PNG of 16 bits a channel.
    """
    grey = image.mode.startswith("I") or image.mode == "F"
    key = image.info.get("transparency")
    if deep_png and key is not None and not grey:
        # Pillow keeps the upper 8 of 16 bits in the pixels, but all 16 bits of the key colour.
        image.info["transparency"] = tuple(v >> 8 for v in key)
    convert = _scaling(image) if grey else _on_white
    turn = orientation(image)
    width, height = image.size
    unchanged = image.mode == "RGB" and turn == 1 and not image.has_transparency_data
    if unchanged or width * height <= _BAND:
        return _turned(convert(image), turn)
    whole = Image.new("RGB", (height, width) if turn in SIDEWAYS else (width, height))
    for top, band in _bands(image):
        start = height - top - band.height if turn in _FROM_THE_END else top
        whole.paste(_turned(convert(band), turn), (start, 0) if turn in SIDEWAYS else (0, start))
    return whole


def is_deep_tiff(image: Image.Image) -> bool:
    """Whether it is a TIFF of 16 bits a channel."""
    return image.format == "TIFF" and max(image.tag_v2.get(_BITS, (1,))) == 16


def not_shown(image: Image.Image, *, deep: bool) -> str | None:
    """The reason why Pillow shows a 16-bit image (`deep`) wrongly, or None.

    Pillow keeps only the upper 8 bits of colours, and combines separate planes wrongly.
    """
    colours = image.getbands()
    if not deep or image.mode.startswith(("I", "F")):
        return None
    if image.format == "TIFF" and image.tag_v2.get(_PLANES, 1) == 2 and len(colours) > 1:
        return "16 bits a channel in separate planes; save it with 8 bits, or interleaved"
    ranges = image.getextrema() if len(colours) > 1 else (image.getextrema(),)
    high = {band.upper(): top for band, (_, top) in zip(colours, ranges, strict=True)}
    if high.pop("A", 255) == 0:  # fully transparent
        return None
    if max(high.values()) < 64:
        return "16 bits a channel, but the upper bits are not used; save it with 8 bits"
    return None


def opacity(image: Image.Image) -> Image.Image:
    """The opacity of an image, mode L, upright. Call `upright` first: it repairs key colours."""
    alpha = Image.new("L", image.size, 255)
    if image.has_transparency_data and not image.mode.startswith(("I", "F")):
        straight = image.convert(image.mode.upper()) if image.mode in ("RGBa", "La") else image
        alpha = straight.convert("RGBA").getchannel("A")
    return _turned(alpha, orientation(image))


def to_array(image: Image.Image) -> UInt8[np.ndarray, "H W C"]:
    """A copy of an RGB or RGBA image as an array."""
    array = np.empty((image.height, image.width, len(image.getbands())), np.uint8)
    for top, band in _bands(image):
        array[top : top + band.height] = np.asarray(band)
    return array


def equal(a: Image.Image, b: Image.Image) -> bool:
    """Whether two images have the same pixels."""
    if (a.mode, a.size) != (b.mode, b.size):
        return False
    return all(
        band_a.tobytes() == band_b.tobytes()
        for (_, band_a), (_, band_b) in zip(_bands(a), _bands(b), strict=True)
    )


def orientation(image: Image.Image) -> int:
    """EXIF orientation 1 to 8. Load the image first: Pillow then turns a TIFF and drops the tag."""
    try:
        value = image.getexif().get(_ORIENTATION, 1)
        return value if value in _UPRIGHT else 1
    except MemoryError:
        raise
    except Exception:  # a damaged EXIF block does not affect the pixels
        return 1


def _turned(image: Image.Image, turn: int) -> Image.Image:
    return image.transpose(_UPRIGHT[turn]) if turn in _UPRIGHT else image


def _bands(image: Image.Image) -> Iterator[tuple[int, Image.Image]]:
    """Yields (first row, band of rows) from top to bottom."""
    step = max(1, _BAND // image.width)
    for top in range(0, image.height, step):
        yield top, image.crop((0, top, image.width, min(top + step, image.height)))


def _on_white(image: Image.Image) -> Image.Image:
    """Mode RGB, transparent parts composited on white."""
    if image.mode == "LAB":
        return _lab_to_rgb(image)
    if image.mode in ("RGBa", "La"):
        image = image.convert(image.mode.upper())
    if image.has_transparency_data:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, (255, 255, 255, 255))
        image = Image.alpha_composite(white, image)
    return image if image.mode == "RGB" else image.convert("RGB")


def _scaling(image: Image.Image) -> Callable[[Image.Image], Image.Image]:
    """A function that converts bands of 16-bit, 32-bit or float grey to RGB.

    No file states its value of white. It is the smallest of `_WHITES` (and 1, for float) that
    covers the values; other values are stretched from their minimum to their maximum. If all 16
    bits are used, the upper 8 are kept, as Pillow does for 48-bit colour.
    """
    key = image.info.get("transparency")
    low, white = _range(image, key)
    upper = image.mode.startswith("I;16") and white == _WHITES[-1]

    def scale(band: Image.Image) -> Image.Image:
        values = np.asarray(band)
        if upper:
            grey = (values >> 8).astype(np.uint8)
        else:
            scaled = (values.astype(np.float64) - low) * (255 / white)
            grey = np.round(np.clip(scaled, 0, 255)).astype(np.uint8)
        if isinstance(key, int):
            grey[values == key] = 255
        return Image.fromarray(grey).convert("RGB")

    return scale


def _range(image: Image.Image, key: object) -> tuple[float, float]:
    """The value of black and the distance from it to white; `key` marks transparent pixels."""
    low, high = np.inf, -np.inf
    for _, band in _bands(image):
        values = np.asarray(band)
        if not np.isfinite(values).all():
            raise ValueError("holds values that are not finite")
        if isinstance(key, int):
            values = values[values != key]
        if values.size:
            low, high = min(low, float(values.min())), max(high, float(values.max()))
    whites = (1.0, *_WHITES) if image.mode == "F" else _WHITES
    white = next((w for w in whites if high <= w), None)
    if low < 0 or white is None:
        return low, max(high - low, 1.0)
    return 0.0, white


def _lab_to_rgb(image: Image.Image) -> Image.Image:
    from PIL import ImageCms  # imported here: not every Pillow has littlecms, and LAB is rare

    lab, srgb = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
    return ImageCms.profileToProfile(image, lab, srgb, outputMode="RGB")
