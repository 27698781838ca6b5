"""One file to pixels: bytes in, u8 RGB out, upright and on white, or an `ImageError`.

decode.py is where to start: it decodes every image. encoded.py reads files and names other kinds of
file. letterboxing.py fits pixels into a square. descriptor.py is for near-duplicates.
"""

from jaxgear.data.images.decode import Decoding, decoded, load_letterboxed, load_rgb, load_rgba
from jaxgear.data.images.descriptor import describe_image
from jaxgear.data.images.encoded import ImageError, read_bytes
from jaxgear.data.images.letterboxing import ENOUGH, letterbox, letterbox_image
from jaxgear.data.images.png import encode_png, store_png

__all__ = [
    "ENOUGH",
    "Decoding",
    "ImageError",
    "decoded",
    "describe_image",
    "encode_png",
    "letterbox",
    "letterbox_image",
    "load_letterboxed",
    "load_rgb",
    "load_rgba",
    "read_bytes",
    "store_png",
]
