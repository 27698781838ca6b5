"""A picture that Pillow has decoded, of any mode -> mode RGB: upright and on white.

Large ones band by band of rows: Pillow's conversions each make a picture of four bytes a pixel,
and several of them at once would take more than 1 GB for the largest that is read.
"""

from collections.abc import Callable, Iterator

import numpy as np
from jaxtyping import UInt8
from PIL import Image

_ORIENTATION = 0x0112
_BITS, _PLANES = 258, 284  # tags of TIFF
_BAND = 1 << 20  # pixels
# What white may be: of 8, 10, 12, 14 and 16 bits. Cameras and scanners of fewer bits than a file
# has fill the lower ones.
_WHITES = (255.0, 1023.0, 4095.0, 16383.0, 65535.0)

_UPRIGHT = {  # EXIF orientation -> what turns the stored pixels upright (EXIF 2.3, tag 0x0112)
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
    """The pixels of a loaded image, as `images.load_rgb` describes them: `image` itself where they
    are that already.

    Args:
        image: loaded; its `info["transparency"]` may be changed.
        deep_png: it is a PNG of 16 bits a channel.
    """
    grey = image.mode.startswith("I") or image.mode == "F"
    key = image.info.get("transparency")
    if deep_png and key is not None and not grey:
        # Pillow keeps the upper 8 bits of the 16 of a channel, but all 16 of the key colour
        image.info["transparency"] = tuple(v >> 8 for v in key)
    flat = _scaling(image) if grey else _on_white
    turn = orientation(image)
    width, height = image.size
    as_it_is = image.mode == "RGB" and turn == 1 and not image.has_transparency_data
    if as_it_is or width * height <= _BAND:
        return _turned(flat(image), turn)
    whole = Image.new("RGB", (height, width) if turn in SIDEWAYS else (width, height))
    for top, band in _bands(image):
        start = height - top - band.height if turn in _FROM_THE_END else top
        whole.paste(_turned(flat(band), turn), (start, 0) if turn in SIDEWAYS else (0, start))
    return whole


def is_deep_tiff(image: Image.Image) -> bool:
    """Whether it is a TIFF of 16 bits a channel."""
    return image.format == "TIFF" and max(image.tag_v2.get(_BITS, (1,))) == 16


def not_shown(image: Image.Image, *, deep: bool) -> str | None:
    """Why a loaded image of 16 bits a channel (`deep`) does not show what is in its file.

    Of colours Pillow keeps the upper 8 bits, and puts planes together wrongly.
    """
    colours = image.getbands()
    if not deep or image.mode.startswith(("I", "F")):
        return None
    if image.format == "TIFF" and image.tag_v2.get(_PLANES, 1) == 2 and len(colours) > 1:
        return "16 bits a channel in separate planes; save it with 8 bits, or interleaved"
    ranges = image.getextrema() if len(colours) > 1 else (image.getextrema(),)
    high = {band.upper(): above for band, (_, above) in zip(colours, ranges, strict=True)}
    if high.pop("A", 255) == 0:  # nothing shows
        return None
    if max(high.values()) < 64:
        return "16 bits a channel of which the upper ones are not used; save it with 8 bits"
    return None


def opacity(image: Image.Image) -> Image.Image:
    """Mode L, upright: how opaque an image is that `upright` has seen (it repairs key colours)."""
    alpha = Image.new("L", image.size, 255)
    if image.has_transparency_data and not image.mode.startswith(("I", "F")):
        straight = image.convert(image.mode.upper()) if image.mode in ("RGBa", "La") else image
        alpha = straight.convert("RGBA").getchannel("A")
    return _turned(alpha, orientation(image))


def to_array(image: Image.Image) -> UInt8[np.ndarray, "H W C"]:
    """An image of mode RGB or RGBA as an array of its own."""
    array = np.empty((image.height, image.width, len(image.getbands())), np.uint8)
    for top, band in _bands(image):
        array[top : top + band.height] = np.asarray(band)
    return array


def equal(one: Image.Image, other: Image.Image) -> bool:
    """Whether two images have the same pixels."""
    if (one.mode, one.size) != (other.mode, other.size):
        return False
    return all(
        a.tobytes() == b.tobytes()
        for (_, a), (_, b) in zip(_bands(one), _bands(other), strict=True)
    )


def orientation(image: Image.Image) -> int:
    """EXIF orientation 1 to 8; asked after loading: Pillow turns TIFF itself and drops the tag."""
    try:
        found = image.getexif().get(_ORIENTATION, 1)
        return found if found in _UPRIGHT else 1
    except MemoryError:
        raise
    except Exception:  # the pixels are fine; a damaged EXIF block is no reason to refuse them
        return 1


def _turned(image: Image.Image, turn: int) -> Image.Image:
    return image.transpose(_UPRIGHT[turn]) if turn in _UPRIGHT else image


def _bands(image: Image.Image) -> Iterator[tuple[int, Image.Image]]:
    """Rows, in order, with the number of the first."""
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
    """What makes RGB of bands of 16-bit, 32-bit and float grey.

    No file says which value is white: it is taken as the smallest of `_WHITES` (and 1, of float)
    that covers the values, and anything else is stretched from its own minimum to its own maximum.
    Of 16 bits that are all used the upper 8 are kept, as Pillow does for 48-bit colour.
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
    """Which value is black, and how far above it white is; `key` stands for transparency."""
    low, high = np.inf, -np.inf
    for _, band in _bands(image):
        values = np.asarray(band)
        if not np.isfinite(values).all():
            raise ValueError("values that are not finite")
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
    from PIL import ImageCms  # needs littlecms, which not every Pillow has; LAB is rare

    lab, srgb = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
    return ImageCms.profileToProfile(image, lab, srgb, outputMode="RGB")
