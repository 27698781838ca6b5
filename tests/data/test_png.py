"""Any decoder returns the encoded pixels."""

import hashlib
import io
import struct
import tracemalloc
import zlib
from pathlib import Path

import numpy as np
import pytest
from pictures import scene
from PIL import Image

from jaxgear.data.images.decode import load_letterboxed, load_rgb
from jaxgear.data.images.letterboxing import letterbox
from jaxgear.data.images.png import decode_png, encode_png, store_png


@pytest.mark.parametrize("shape", [(1, 1), (1, 300), (300, 1), (48, 64), (128, 128)])
def test_the_same_pixels(shape: tuple[int, int]):
    noise = np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)
    for pixels in (noise, scene(3, *shape), np.full((*shape, 3), 255, np.uint8)):
        data = encode_png(pixels)
        assert encode_png(pixels) == data
        assert np.array_equal(load_rgb(data), pixels)
        found = decode_png(data, *shape)
        assert found.dtype == np.uint8
        assert np.array_equal(found, pixels)
        assert found.flags.writeable
        with Image.open(io.BytesIO(data)) as image:
            image.verify()  # the check sums
            assert (image.format, image.mode, image.size) == ("PNG", "RGB", shape[::-1])


def test_only_whole_files_of_that_size_by_encode_png_are_decoded():
    pixels = scene(0, 48, 64)
    data = encode_png(pixels)
    assert decode_png(data, 64, 48) is None
    assert decode_png(data, 48, 65) is None
    for end in range(len(data)):
        assert decode_png(data[:end], 48, 64) is None
    assert decode_png(data + b"\0", 48, 64) is None
    for place in range(len(data)):  # names, lengths, check sums and pixels
        broken = bytearray(data)
        broken[place] ^= 1 + place % 255
        assert decode_png(bytes(broken), 48, 64) is None
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")  # with other filters
    assert decode_png(file.getvalue(), 48, 64) is None


@pytest.mark.parametrize("rows", [47, 49, 10**6])
def test_more_or_fewer_pixels_than_the_header_says(rows: int):
    """An endless stream is unpacked only up to the size of the image."""
    head, end = encode_png(scene(0, 48, 64))[:33], encode_png(scene(0, 48, 64))[-12:]
    packed = zlib.compress((b"\x02" + bytes(192)) * rows)
    chunk = b"IDAT" + packed
    whole = struct.pack(">I", len(packed)) + chunk + struct.pack(">I", zlib.crc32(chunk))
    tracemalloc.start()
    assert decode_png(head + whole + end, 48, 64) is None
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 2**24  # of 193 MB


def test_a_prepared_picture_is_letterboxed_as_any_other():
    pixels = scene(5, 96, 96)
    data = encode_png(pixels)
    assert np.array_equal(load_letterboxed(data, 96, "x"), pixels)
    assert np.array_equal(load_letterboxed(data, 64, "x"), letterbox(pixels, 64))


def test_flat_pictures_are_small():
    assert len(encode_png(np.full((128, 128, 3), 255, np.uint8))) < 500


def test_files_are_no_larger_than_those_of_zlib():
    """Summed over scenes of several sizes, against Pillow's fastest level."""
    ours = pillow = 0
    for number in range(12):
        pixels = scene(number, 60 + 20 * number, 300 - 15 * number)
        file = io.BytesIO()
        Image.fromarray(pixels).save(file, "PNG", compress_level=1)
        ours, pillow = ours + len(encode_png(pixels)), pillow + len(file.getvalue())
    assert ours < 1.1 * pillow


def test_views_that_are_not_contiguous():
    pixels = scene(1, 96, 96)[::2, ::-3]
    assert np.array_equal(load_rgb(encode_png(pixels)), pixels)


def test_photographs(shared: Path):
    """Full size and letterboxed: the same pixels."""
    for path in sorted((shared / "data/gear").glob("*/*"))[::100]:
        pixels = load_rgb(path)
        for shown in (pixels, letterbox(pixels, 128)):
            assert np.array_equal(load_rgb(encode_png(shown)), shown)


@pytest.mark.parametrize("shape", [(1, 1), (3, 7), (200, 150), (1, 40_000)])
def test_stored_pixels_come_back_and_fill_blocks(shape: tuple[int, int]):
    pixels = np.random.default_rng(0).integers(0, 256, (*shape, 3), np.uint8)
    data = store_png(pixels)
    assert np.array_equal(load_rgb(data), pixels)
    height, width = shape
    plain = height * (1 + 3 * width)
    assert len(data) == 57 + 2 + plain + 5 * -(-plain // 65535) + 4  # chunks, zlib, blocks, sum


def test_stored_bytes_are_the_same_on_every_machine():
    pixels = np.arange(150 * 200 * 3, dtype=np.uint32).reshape(150, 200, 3).astype(np.uint8)
    digest = hashlib.sha256(store_png(pixels)).hexdigest()
    assert digest == "4dc10241298821008db1ad7be2eb04ebb441e8c592513aa656d653e8debb4456"
