"""Decodes images: bytes or a path in, RGB uint8 out. All images are decoded here.

Uses NumPy and Pillow, and png.py for our own files. The content of a file decides its format, never
its extension. A truncated file is an `ImageError`, never a partly grey image; `load_rgb` lists the
damage that stays undetected. ICC profiles are not applied: the values are taken as sRGB.
"""

import io
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass

import numpy as np
from jaxtyping import UInt8
from PIL import Image, UnidentifiedImageError, features

from jaxgear.data.images import jpeg, rgb
from jaxgear.data.images.encoded import ImageError, check_whole, read_bytes, what_it_is
from jaxgear.data.images.letterboxing import ENOUGH, letterbox_image, reduction
from jaxgear.data.images.png import decode_png
from jaxgear.data.images.threads import Turns, quiet_pillow
from jaxgear.errors import GearError, first_line

# Part of every cache key: raise it whenever the pixels of an unchanged file would change.
VERSION = 4

# Phones take up to 200 million pixels. JPEGs are decoded at reduced size where that is enough: at
# most 0.8 GB. At full size, 250 million pixels take up to 2.8 GB (11 bytes a pixel).
MAX_PIXELS = 250_000_000
# These decoders hold several copies: WebP takes 16 bytes a pixel, and its file may have 40 bytes.
_FEWER_PIXELS = {"WEBP": 100_000_000, "AVIF": 100_000_000}
_decoding = Turns(50_000_000)  # pixels in all threads at once; a larger image is decoded alone
# Pillow refuses images over twice this number, so it must not be below our own limit.
Image.MAX_IMAGE_PIXELS = max(Image.MAX_IMAGE_PIXELS or 0, MAX_PIXELS)

_FRAMES = 32  # frames of a TIFF that are examined
_SUBFILE = 254  # TIFF tag; bit 0 marks a smaller version of another image

# Pillow reads some 40 formats, and some start other programs (EPS). Photographs need few of them.
FORMATS = ["JPEG", "PNG", "GIF", "BMP", "TIFF"] + [
    name for name in ("WEBP", "AVIF") if features.check(name.lower())
]
with suppress(ImportError):  # the extra `heic`
    import pillow_heif

    pillow_heif.register_heif_opener()
    FORMATS.append("HEIF")


def load_rgb(
    source: bytes | str | os.PathLike[str], name: str | None = None
) -> UInt8[np.ndarray, "H W 3"]:
    """Decodes an image completely, as people see it: upright and on white.

    Only PNG has checksums over all of its data. Other files may decode although their bytes were
    overwritten (zeros, noise): WebP, AVIF, BMP and uncompressed TIFF nearly always, JPEGs that are
    progressive, arithmetic-coded or have restarts often, and all others at times.

    Args:
        source: the encoded file, or its path. JPEG, PNG, GIF, BMP, TIFF, and WebP and AVIF where
            Pillow supports them. An animation gives its first frame.
        name: name of the image in error messages; default: the path.

    Returns:
        u8 0-255 HWC in RGB, writeable. The EXIF orientation is applied, every kind of transparency
        is composited on white, and 16 bits a channel are scaled to 8.

    Raises:
        ImageError: missing, not a regular file, not an image, damaged, truncated, or over
            `MAX_PIXELS` (by its header, before any pixel is allocated).
    """
    return _load(source, name, opacity=False)


def load_rgba(
    source: bytes | str | os.PathLike[str], name: str | None = None
) -> UInt8[np.ndarray, "H W 4"]:
    """`load_rgb` with the opacity as a fourth channel; 255 if the file has no transparency.

    Colours are composited on white, so pixels of opacity 0 are white.
    """
    return _load(source, name, opacity=True)


def _load(
    source: bytes | str | os.PathLike[str], name: str | None, *, opacity: bool
) -> UInt8[np.ndarray, "H W C"]:
    if isinstance(source, bytes):
        name, data = name or "picture", source
    else:
        name = name or os.fspath(source)
        data = read_bytes(source, name)
    with decoded(data, name, opacity=opacity) as picture:
        return rgb.to_array(picture.image)


def load_letterboxed(data: bytes, size: int, name: str) -> UInt8[np.ndarray, "S S 3"]:
    """The input of networks: an image decoded and letterboxed at `size`.

    Equals `letterbox(load_rgb(data, name), size)`, except that the JPEG decoder does part of the
    `reduction` (see `decoded`). `decode_png` unpacks images that were prepared at this size.
    Raises `ImageError` as `load_rgb`.
    """
    if (prepared := decode_png(data, size, size)) is not None:
        return prepared
    with decoded(data, name, least=max(size, ENOUGH)) as picture:
        return letterbox_image(picture.image, size)


@dataclass(frozen=True, slots=True)
class Decoding:
    """A decoded image, at full or reduced size."""

    image: Image.Image  # mode RGB, or RGBA
    height: int  # full size, upright
    width: int

    @property
    def whole(self) -> bool:
        """Whether it has full size."""
        return self.image.size == (self.width, self.height)

    def serves(self, size: int) -> bool:
        """Whether an image decoded with `least=ENOUGH` is large enough to letterbox at `size`."""
        return self.whole or max(self.image.size) >= size


@contextmanager
def decoded(
    data: bytes, name: str, *, least: int | None = None, opacity: bool = False
) -> Iterator[Decoding]:
    """Yields an image in mode RGB, or RGBA with `opacity`, within its turn of decoding memory.

    With `least`, a JPEG is decoded at the smallest scale of 1, 1/2, 1/4 and 1/8 that leaves `least`
    pixels on the longer side. This uses fewer DCT coefficients of each block, which is faster than
    averaging all pixels. The file is still read to its end. Raises `ImageError` as `load_rgb`.
    """
    with ExitStack() as turn:
        # The decoder's own memory is free again when this yields.
        yield _decode(data, name, turn, least, opacity)


def _decode(data: bytes, name: str, turn: ExitStack, least: int | None, opacity: bool) -> Decoding:
    layout = check_whole(data, name)
    watched = jpeg.Watched(data, layout) if layout and layout.in_step else None
    size = None
    try:
        with quiet_pillow(), Image.open(watched or io.BytesIO(data), formats=FORMATS) as image:
            if image.format == "TIFF":
                _choose_frame(image)
            width, height = size = image.size
            limit = min(MAX_PIXELS, _FEWER_PIXELS.get(image.format, MAX_PIXELS))
            if width * height > limit:
                raise ImageError(name, _too_large(f"{width} x {height} pixels", limit))
            reduced = least is not None and _reduce(image, least)
            # A progressive JPEG keeps all coefficients in memory, also at reduced size.
            in_memory = image.size if watched else (width, height)
            turn.enter_context(_decoding.turn(in_memory[0] * in_memory[1]))
            if watched:
                watched.watch()
            image.load()
            fault = watched.fault if watched else layout and _fault(data, layout, image, least)
            if fault:
                raise ImageError(name, fault)
            deep_png = image.format == "PNG" and data[24] == 16
            if reason := rgb.not_shown(image, deep=deep_png or rgb.is_deep_tiff(image)):
                raise ImageError(name, reason)
            flat = rgb.upright(image, deep_png=deep_png)
            if opacity:
                flat.putalpha(rgb.opacity(image))
            if reduced and rgb.orientation(image) in rgb.SIDEWAYS:
                width, height = height, width
            return Decoding(flat, *((height, width) if reduced else flat.size[::-1]))
    except ImageError:
        raise
    except MemoryError as error:
        raise MemoryError(f"{name}: too little memory to decode it") from error
    except ImportError as error:
        raise GearError(f"{name}: Pillow needs a missing module ({error}); install it") from error
    except UnidentifiedImageError:
        raise ImageError(name, what_it_is(data, FORMATS)) from None
    except Image.DecompressionBombError:
        raise ImageError(name, _too_large("its size", MAX_PIXELS)) from None
    except Exception as error:  # hostile bytes make Pillow's parsers raise nearly anything
        if not _room_to_decode(size):
            raise MemoryError(f"{name}: too little memory to decode it") from error
        raise ImageError(name, f"damaged picture ({first_line(error)})") from error


def _fault(data: bytes, layout: jpeg.Scans, image: Image.Image, least: int | None) -> str | None:
    """The fault of a JPEG with several scans or restarts that was decoded to `image`, or None.

    Decodes it again with filler in the gaps: if data are missing, the pixels change.
    """
    if fault := jpeg.fault_in_pieces(data, layout):
        return fault
    filled = jpeg.with_filler(data, layout)
    if filled is None:
        return None
    with Image.open(io.BytesIO(filled), formats=FORMATS) as again:
        if least is not None:
            _reduce(again, least)
        again.load()
        return None if rgb.equal(image, again) else "truncated JPEG (a part of its data ends early)"


def _choose_frame(image: Image.Image) -> None:
    """Seeks the first of the largest images of a TIFF: thumbnails may come before it.

    Raises:
        ValueError: every image is marked as a thumbnail.
    """
    sizes, small = [], []
    with suppress(EOFError, SyntaxError):  # the end of the file, or damage from here on
        for frame in range(_FRAMES):
            image.seek(frame)
            sizes.append(image.width * image.height)
            small.append(bool(image.tag_v2.get(_SUBFILE, 0) & 1))
    if all(small):
        raise ValueError("holds only a thumbnail, as camera raw files do; export it as JPEG")
    image.seek(sizes.index(max(sizes)))


def _room_to_decode(size: tuple[int, int] | None) -> bool:
    """Whether there was memory to decode an image of `size` (None: unknown).

    The decoders of JPEG, WebP and AVIF report a damaged image when memory is short (ulimit -v).
    """
    room = 2**28 if size is None else 8 * size[0] * size[1]
    try:
        np.empty(room, np.uint8)  # reserves address space only
    except MemoryError:
        return False
    return True


def _reduce(image: Image.Image, least: int) -> bool:
    """Asks the JPEG decoder for a reduced size; returns whether the size changes."""
    size = image.size
    factor = min(8, reduction(max(size), least))
    if factor > 1:  # Pillow ignores `draft` for other formats
        image.draft(None, (max(1, image.width // factor), max(1, image.height // factor)))
    return image.size != size


def _too_large(size: str, limit: int) -> str:
    return f"{size} is over the limit of {limit // 10**6} million pixels; resize it"
