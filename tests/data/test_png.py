"""Any decoder shows the pixels that went in."""

import io
from pathlib import Path

import numpy as np
import pytest
from pictures import scene
from PIL import Image

from jaxgear.data.images import letterbox, load_rgb
from jaxgear.data.png import encode_png


@pytest.mark.parametrize("shape", [(1, 1), (1, 300), (300, 1), (48, 64), (128, 128)])
def test_the_same_pixels(shape: tuple[int, int]):
    noise = np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)
    for pixels in (noise, scene(3, *shape), np.full((*shape, 3), 255, np.uint8)):
        data = encode_png(pixels)
        assert encode_png(pixels) == data
        assert np.array_equal(load_rgb(data), pixels)
        with Image.open(io.BytesIO(data)) as image:
            image.verify()  # the check sums
            assert (image.format, image.mode, image.size) == ("PNG", "RGB", shape[::-1])


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
    """As they are and as small ones: the same pixels."""
    for path in sorted((shared / "data/gear").glob("*/*"))[::100]:
        pixels = load_rgb(path)
        for shown in (pixels, letterbox(pixels, 128)):
            assert np.array_equal(load_rgb(encode_png(shown)), shown)
