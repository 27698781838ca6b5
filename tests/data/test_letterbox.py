"""`letterbox` keeps the whole picture; JPEGs are decoded as small as will do."""

import time
from pathlib import Path

import numpy as np
import pytest
from image_files import encode, scene
from PIL import Image

from jaxgear.data.folder.picture_cache import shrink
from jaxgear.data.images import decode as images
from jaxgear.data.images.decode import load_letterboxed, load_rgb
from jaxgear.data.images.encoded import ImageError
from jaxgear.data.images.letterboxing import ENOUGH, letterbox


def test_letterbox_keeps_the_whole_picture_centred_on_white():
    red = np.full((50, 100, 3), [200, 0, 0], np.uint8)
    square = letterbox(red, 64)
    assert square.dtype == np.uint8
    assert (square[16:48] == [200, 0, 0]).all()
    assert (square[:16] == 255).all()
    assert (square[48:] == 255).all()
    assert np.array_equal(letterbox(red.transpose(1, 0, 2).copy(), 64), square.transpose(1, 0, 2))


def test_letterbox_leaves_a_picture_that_fits_alone():
    image = scene(64, 64)
    assert np.array_equal(letterbox(image, 64), image)


def test_letterbox_enlarges_small_pictures():
    small = letterbox(scene(10, 16), 64)
    large = letterbox(scene(200, 320), 64)
    content = slice(12, 52)
    assert np.abs(small[content].astype(int) - large[content]).mean() < 12
    assert (small[:12] == 255).all()


def test_letterbox_is_antialiased():
    stripes = np.zeros((512, 512, 3), np.uint8)
    stripes[:, ::2] = 255  # must become even grey, not black or white columns
    assert np.abs(letterbox(stripes, 64)[:, 2:-2].astype(int) - 127).max() <= 3


@pytest.mark.parametrize("shape", [(1, 5000), (5000, 1), (1, 1), (3, 200), (200, 3)])
def test_letterbox_of_thin_pictures_keeps_a_pixel(shape: tuple[int, int]):
    square = letterbox(np.zeros((*shape, 3), np.uint8), 32)
    assert (square == 0).all(axis=2).any()


@pytest.mark.parametrize("size", [16, 60, 100, 300])
@pytest.mark.parametrize("shape", [(40, 60), (700, 90), (3, 250)])
def test_load_letterboxed_is_letterbox_of_load_rgb(shape: tuple[int, int], size: int):
    alpha = np.full((*shape, 1), 90, np.uint8)
    files = [
        encode(Image.fromarray(np.concatenate([scene(*shape), alpha], axis=2)), "PNG"),
        encode(Image.fromarray(scene(*shape)[..., 0]), "PNG"),
        encode(Image.fromarray(scene(*shape)), "TIFF", tiffinfo={0x0112: 6}),
    ]
    if max(shape) < 2 * ENOUGH:  # a JPEG that is not decoded smaller
        files.append(encode(Image.fromarray(scene(*shape)), "JPEG", exif=turned(6)))
    for data in files:
        expected = letterbox(load_rgb(data), size)
        np.testing.assert_array_equal(load_letterboxed(data, size, "x"), expected)
    with pytest.raises(ImageError, match="x: empty file"):
        load_letterboxed(b"", size, "x")


def turned(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize(
    ("longer", "least", "expected"),
    [(256, 128, 128), (255, 128, 128), (254, 128, 254), (257, 129, 129), (500, 128, 250),
     (1025, 128, 129), (3000, 128, 375), (3000, 376, 750), (300, 1, 38), (300, None, 300)],
)  # fmt: skip
def test_jpegs_are_decoded_as_small_as_will_do(
    longer: int, least: int | None, expected: int, progressive: bool
):
    """At the requested size, close in grey levels to the average of the pixels they replace."""
    full = scene(longer // 2, longer)
    for orientation in (1, 6):
        options = {"quality": 95, "progressive": progressive, "exif": turned(orientation)}
        data = encode(Image.fromarray(full), "JPEG", **options)
        with images.decoded(data, "x", least=least) as picture:
            small = np.asarray(picture.image)
        upright = np.rot90(full, -1) if orientation == 6 else full
        assert (picture.height, picture.width) == upright.shape[:2]
        assert max(small.shape) == expected
        assert picture.whole == (expected == longer)
        averaged = Image.fromarray(upright).resize(small.shape[1::-1], Image.Resampling.BOX)
        assert np.abs(small.astype(int) - np.asarray(averaged)).mean() < 3


def test_what_is_no_jpeg_is_decoded_in_full():
    for kind in ("PNG", "TIFF", "GIF", "BMP", "WEBP"):
        data = encode(Image.fromarray(scene(300, 400)), kind)
        with images.decoded(data, "x", least=50) as picture:
            assert picture.whole
            assert picture.image.size == (400, 300)


@pytest.mark.parametrize("size", [32, 128, 129, 200, 224, 400])
@pytest.mark.parametrize("longer", [120, 255, 257, 300, 437, 640, 1100])
def test_what_is_kept_of_a_picture_does_not_depend_on_how_it_came(longer: int, size: int):
    """Its pixels equal those at prediction, and its descriptor is the same at every size."""
    data = encode(Image.fromarray(scene(longer // 2, longer)), "JPEG")
    kept = shrink(data, "x", size)
    np.testing.assert_array_equal(kept.pixels, load_letterboxed(data, size, "x"))
    assert (kept.height, kept.width) == (longer // 2, longer)
    assert kept.descriptor == shrink(data, "x", 16).descriptor


def test_reduced_pixels_are_close_to_those_of_the_whole_picture(shared: Path):
    """On photographs; 1.9 grey levels on average (results/README.md, "Preparing sets")."""
    away = []
    for path in sorted((shared / "data/gear").glob("*/*.jpg"))[::40]:
        data = path.read_bytes()
        whole = letterbox(load_rgb(data), 128).astype(float)
        away.append(np.sqrt(np.mean((load_letterboxed(data, 128, path.name) - whole) ** 2)))
    assert max(away) > 0, "none was decoded smaller"
    assert np.mean(away) < 3


def test_the_end_of_a_jpeg_is_read_where_less_is_decoded():
    data = encode(Image.fromarray(scene(600, 800)), "JPEG", quality=95)
    with pytest.raises(ImageError, match="truncated"):
        load_letterboxed(data[: len(data) // 2], 32, "x")


def test_real_pictures(shared: Path):
    for path in sorted((shared / "data" / "broken").iterdir()):
        with pytest.raises(ImageError, match="web page"):
            load_rgb(path)
    gloves = sorted((shared / "data" / "gear" / "gloves").glob("*.png"))[:10]
    start = time.perf_counter()
    corners = [load_rgb(path)[0, 0].tolist() for path in gloves]
    assert time.perf_counter() - start < 5
    assert corners == [[255, 255, 255]] * len(gloves)  # transparent there, near-black beneath
