"""Any decoder shows the pixels that went in."""

import io

import numpy as np
import pytest
from pictures import scene
from PIL import Image

from jaxgear.data.images import load_rgb
from jaxgear.data.png import encode_png


@pytest.mark.parametrize("shape", [(1, 1), (1, 300), (300, 1), (48, 64), (128, 128)])
def test_the_same_pixels(shape: tuple[int, int]):
    noise = np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)
    for pixels in (noise, scene(3, *shape), np.full((*shape, 3), 255, np.uint8)):
        data = encode_png(pixels)
        assert np.array_equal(load_rgb(data), pixels)
        with Image.open(io.BytesIO(data)) as image:
            image.verify()  # the check sums
            assert (image.format, image.mode, image.size) == ("PNG", "RGB", shape[::-1])


def test_flat_pictures_are_small():
    assert len(encode_png(np.full((128, 128, 3), 255, np.uint8))) < 500


def test_views_that_are_not_contiguous():
    pixels = scene(1, 96, 96)[::2, ::-3]
    assert np.array_equal(load_rgb(encode_png(pixels)), pixels)
