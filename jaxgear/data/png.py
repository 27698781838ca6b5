"""Pictures as PNG files, quickly: for many small ones that are written once and read often."""

import struct

import numpy as np
from isal import isal_zlib
from jaxtyping import UInt8

_UP = 2  # filter type: the difference to the pixel above (PNG specification, section 9.2)
_LEVEL = 1  # of 0 to 3; on photographs and drawings no other gives smaller files


def encode_png(rgb: UInt8[np.ndarray, "H W 3"]) -> bytes:
    """The bytes of a PNG file, u8 0-255 RGB.

    The filter Up in every row, then Intel's deflate (ISA-L): a third of the time of zlib's fastest
    strategy (Z_RLE), in files of the same size. The bytes are the same on every call; on another
    processor or with another ISA-L they may be others, of the same pixels.
    """
    height, width, _ = rgb.shape
    flat = rgb.reshape(height, 3 * width)
    rows = np.empty((height, 1 + 3 * width), np.uint8)
    rows[:, 0] = _UP
    rows[0, 1:] = flat[0]
    np.subtract(flat[1:], flat[:-1], out=rows[1:, 1:])  # modulo 256, as it must be
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)  # 8 bits, RGB, not interlaced
    chunks = ((b"IHDR", header), (b"IDAT", isal_zlib.compress(rows, _LEVEL)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        part
        for kind, data in chunks
        for part in (struct.pack(">I", len(data)), kind, data, _crc(kind, data))
    )


def _crc(kind: bytes, data: bytes) -> bytes:
    """Check sum of a chunk, which its length is not part of."""
    return struct.pack(">I", isal_zlib.crc32(data, isal_zlib.crc32(kind)))
