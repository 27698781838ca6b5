"""Pictures as PNG files, quickly: for many small ones that are written once and read often."""

import struct
import zlib

import numpy as np
from jaxtyping import UInt8

_UP = 2  # filter type: the difference to the pixel above (PNG specification, section 9.2)


def encode_png(rgb: UInt8[np.ndarray, "H W 3"]) -> bytes:
    """The bytes of a PNG file, u8 0-255 RGB.

    The filter Up in every row, then runs alone (zlib's Z_RLE): on photographs at 128 pixels a third
    of the time of Pillow's fastest level, in files that are no larger.
    """
    height, width, _ = rgb.shape
    flat = rgb.reshape(height, 3 * width)
    rows = np.empty((height, 1 + 3 * width), np.uint8)
    rows[:, 0] = _UP
    rows[0, 1:] = flat[0]
    np.subtract(flat[1:], flat[:-1], out=rows[1:, 1:])  # modulo 256, as it must be
    packer = zlib.compressobj(1, zlib.DEFLATED, 15, 9, zlib.Z_RLE)
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)  # 8 bits, RGB, not interlaced
    body = packer.compress(rows) + packer.flush()
    chunks = ((b"IHDR", header), (b"IDAT", body), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in chunks
    )
