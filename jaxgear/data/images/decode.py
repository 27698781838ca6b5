"""One picture: bytes or a path in, RGB uint8 out. All pictures are decoded through here.

Numpy and Pillow, and png.py for files of our own. What a file is gets decided by its content, never
by its extension. One that is cut short is an `ImageError`, never a partly grey picture; `load_rgb`
says which other damage is seen.
ICC profiles are not applied: the numbers in the file are taken as sRGB.
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
from jaxgear.errors import GearError

# Part of every cache key: raise it whenever the same file would give other pixels than before.
VERSION = 4


# Phones take pictures of 50 to 200 million pixels (16,320 x 12,240), as JPEG or HEIC. JPEGs are
# decoded smaller wherever a small picture will do: at most 0.8 GB. In full, 250 million pixels take
# up to 2.8 GB (11 bytes a pixel).
MAX_PIXELS = 250_000_000
# Of formats whose decoders hold several copies: a WebP takes 16 bytes a pixel, and can be a file of
# 40 bytes.
_FEWER_PIXELS = {"WEBP": 100_000_000, "AVIF": 100_000_000}
# At a time, in all threads; a larger one alone.
_decoding = Turns(50_000_000)
# Pillow refuses what is more than twice this, and not less than we do.
Image.MAX_IMAGE_PIXELS = max(Image.MAX_IMAGE_PIXELS or 0, MAX_PIXELS)

_FRAMES = 32  # of a TIFF that are looked at
_SUBFILE = 254  # tag: bit 0 says that a picture is a smaller version of another

# Pillow knows some 40 formats, some of which start other programs (EPS). Photographs need few.
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
    """Decodes a picture completely, as people see it: upright and on white.

    Only PNG has checksums over all of its data. Other files may decode although bytes in them were
    overwritten (zeros, noise): nearly always WebP, AVIF, BMP and uncompressed TIFF, often JPEGs
    that are progressive, arithmetic-coded or have restarts, and at times all others.

    Args:
        source: the encoded file, or its path. JPEG, PNG, GIF, BMP, TIFF, and WebP and AVIF where
            Pillow has them; of an animation the first frame.
        name: what error messages call the picture; the path when left out.

    Returns:
        u8 0-255 HWC in RGB, writeable. The EXIF orientation is applied, transparency of every kind
        is composited on white, 16 bits a channel are scaled to 8.

    Raises:
        ImageError: missing, not a regular file, not a picture, damaged, cut short, or more than
            `MAX_PIXELS` (found from the header, before any pixel is allocated).
    """
    return _load(source, name, opacity=False)


def load_rgba(
    source: bytes | str | os.PathLike[str], name: str | None = None
) -> UInt8[np.ndarray, "H W 4"]:
    """`load_rgb` with the opacity as a fourth channel: 255 where the file has no transparency.

    The colours are those on white: an opacity of 0 is white whatever the file hides there.
    """
    return _load(source, name, opacity=True)


def _load(
    source: bytes | str | os.PathLike[str], name: str | None, *, opacity: bool
) -> UInt8[np.ndarray, "H W C"]:
    if isinstance(source, bytes):
        name = name or "picture"
        data = source
    else:
        name = name or os.fspath(source)
        data = read_bytes(source, name)
    with decoded(data, name, opacity=opacity) as picture:
        return rgb.to_array(picture.image)


def load_letterboxed(data: bytes, size: int, name: str) -> UInt8[np.ndarray, "S S 3"]:
    """A picture as networks see it: decoded and letterboxed at `size`. `ImageError` as `load_rgb`.

    `letterbox(load_rgb(data, name), size)`, but that the decoder of a JPEG itself does what it can
    of the `reduction` (`decoded`), and what was prepared at this size is unpacked by `decode_png`.
    """
    if (prepared := decode_png(data, size, size)) is not None:
        return prepared
    with decoded(data, name, least=max(size, ENOUGH)) as picture:
        return letterbox_image(picture.image, size)


@dataclass(frozen=True, slots=True)
class Decoding:
    """A picture that was decoded, in full or smaller."""

    image: Image.Image  # mode RGB, or RGBA
    height: int  # of the picture in the file, upright
    width: int

    @property
    def whole(self) -> bool:
        """Whether every pixel is there."""
        return self.image.size == (self.width, self.height)

    def serves(self, size: int) -> bool:
        """Whether `load_letterboxed` at `size` letterboxes this, where it was decoded with
        `ENOUGH`.
        """
        return self.whole or max(self.image.size) >= size


@contextmanager
def decoded(
    data: bytes, name: str, *, least: int | None = None, opacity: bool = False
) -> Iterator[Decoding]:
    """A picture in mode RGB, or RGBA with `opacity`, for as long as it is its turn.

    With `least`, a JPEG is decoded to the smallest of its full size, a half, a quarter and an
    eighth that has so many pixels on the longer side: from fewer coefficients of each block of the
    cosine transform, which is quicker than all pixels and their average. It is read to its end all
    the same. `ImageError` as of `load_rgb`.
    """
    with ExitStack() as turn:
        # What the decoder itself took is free again by then.
        yield _decode(data, name, turn, least, opacity)


def _decode(data: bytes, name: str, turn: ExitStack, least: int | None, opacity: bool) -> Decoding:
    found = check_whole(data, name)
    watched = jpeg.Watched(data, found) if found and found.in_step else None
    size = None
    try:
        with quiet_pillow(), Image.open(watched or io.BytesIO(data), formats=FORMATS) as image:
            if image.format == "TIFF":
                _choose_frame(image)
            width, height = size = image.size
            limit = min(MAX_PIXELS, _FEWER_PIXELS.get(image.format, MAX_PIXELS))
            if width * height > limit:
                raise ImageError(name, _too_large(f"{width} x {height} pixels", limit))
            less = least is not None and _ask_for_less(image, least)
            # A progressive JPEG has all its coefficients in memory, also where less is wanted.
            of_scan = image.size if watched else (width, height)
            turn.enter_context(_decoding.turn(of_scan[0] * of_scan[1]))
            image.load()
            fault = watched.fault if watched else found and _fault(data, found, image, least)
            if fault:
                raise ImageError(name, fault)
            deep_png = image.format == "PNG" and data[24] == 16
            if reason := rgb.not_shown(image, deep=deep_png or rgb.is_deep_tiff(image)):
                raise ImageError(name, reason)
            flat = rgb.upright(image, deep_png=deep_png)
            if opacity:
                flat.putalpha(rgb.opacity(image))
            if not less:
                width, height = flat.size
            elif rgb.orientation(image) in rgb.SIDEWAYS:
                width, height = height, width
            return Decoding(flat, height, width)
    except ImageError:
        raise
    except MemoryError as error:
        raise MemoryError(f"{name}: too little memory to decode it") from error
    except ImportError as error:
        raise GearError(f"{name}: Pillow lacks what decodes it ({error}); install that") from error
    except UnidentifiedImageError:
        raise ImageError(name, what_it_is(data, FORMATS)) from None
    except Image.DecompressionBombError:
        raise ImageError(name, _too_large("its size", MAX_PIXELS)) from None
    except Exception as error:  # hostile bytes make Pillow's parsers raise nearly anything
        if not _room_to_decode(size):
            raise MemoryError(f"{name}: too little memory to decode it") from error
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ImageError(name, f"damaged picture ({reason})") from error


def _fault(data: bytes, found: jpeg.Scans, image: Image.Image, least: int | None) -> str | None:
    """What is wrong with a JPEG of several scans, or with restarts, that was decoded
    to `image`.

    It is decoded once more: what is missing in it would then look otherwise.
    """
    if fault := jpeg.fault_in_pieces(data, found):
        return fault
    filled = jpeg.with_filler(data, found)
    if filled is None:
        return None
    with Image.open(io.BytesIO(filled), formats=FORMATS) as again:
        if least is not None:
            _ask_for_less(again, least)
        again.load()
        return None if rgb.equal(image, again) else "truncated JPEG (a part of its data ends early)"


def _choose_frame(image: Image.Image) -> None:
    """Goes to the largest picture of a TIFF, of equals the first: thumbnails may be before it.

    Raises:
        ValueError: the file says of all of them that they are thumbnails.
    """
    sizes, small = [], []
    with suppress(EOFError, SyntaxError):  # no further picture, or damaged from there on
        for frame in range(_FRAMES):
            image.seek(frame)
            sizes.append(image.width * image.height)
            small.append(bool(image.tag_v2.get(_SUBFILE, 0) & 1))
    if all(small):
        raise ValueError("it holds a thumbnail alone, as camera raw files do; export it as JPEG")
    image.seek(sizes.index(max(sizes)))


def _room_to_decode(size: tuple[int, int] | None) -> bool:
    """Whether a decoder had the memory for a picture of `size`, or one of unknown size. Those of
    JPEG, WebP and AVIF call the picture damaged where memory is short (ulimit -v).
    """
    room = 2**28 if size is None else 8 * size[0] * size[1]
    try:
        np.empty(room, np.uint8)  # not touched, so nothing is taken
    except MemoryError:
        return False
    return True


def _ask_for_less(image: Image.Image, least: int) -> bool:
    """Tells the decoder of a JPEG to make it smaller; whether it will."""
    size = image.size
    factor = min(8, reduction(max(size), least))
    if factor > 1:  # of other formats Pillow takes no notice
        image.draft(None, (max(1, image.width // factor), max(1, image.height // factor)))
    return image.size != size


def _too_large(what: str, limit: int) -> str:
    return f"{what} is over the limit of {limit // 10**6} million pixels; resize it"
