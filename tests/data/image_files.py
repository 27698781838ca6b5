"""Files of images that tests write."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from jaxgear.data.images.decode import load_rgb
from jaxgear.data.images.encoded import ImageError


def encode(image: Image.Image, kind: str, **options) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def scene(height: int = 40, width: int = 60) -> np.ndarray:
    """A smooth picture without symmetry: u8 [H, W, 3]."""
    y, x = np.mgrid[0:height, 0:width]
    channels = [x * 255 // width, y * 255 // height, (x + 2 * y) * 255 // (width + 2 * height)]
    return np.stack(channels, axis=2).astype(np.uint8)


def png(width: int, height: int, depth: int, colour: int, rows: bytes, *extra) -> bytes:
    """A PNG file that Pillow cannot write. `extra`: (name, data) chunks before IDAT."""
    head = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    chunks = [(b"IHDR", head), *extra, (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    parts = [
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        for name, data in chunks
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def reason(data: bytes) -> str:
    with pytest.raises(ImageError) as caught:
        load_rgb(data, "a/b.jpg")
    message = str(caught.value)
    assert message.startswith("a/b.jpg: ")
    assert "\n" not in message
    return message.removeprefix("a/b.jpg: ")
