"""Masks of images with known objects."""

import io

import numpy as np
import pytest
from PIL import Image, ImageDraw

from jaxgear.data.composites import masks as cutout
from jaxgear.data.dataset import Split
from jaxgear.data.folder.read import pixels, read_folder
from jaxgear.data.images.decode import load_rgba

SIDE = 120


def drawn(draw, quality=None):
    """u8 [H, W, 4]: a white image that `draw` has drawn on, saved as a JPEG with `quality`."""
    image = Image.new("RGB", (SIDE, SIDE), "white")
    draw(ImageDraw.Draw(image))
    file = io.BytesIO()
    if quality is None:
        image.save(file, "PNG")
    else:
        image.save(file, "JPEG", quality=quality)
    return load_rgba(file.getvalue(), "drawn")


def disc(pen):
    pen.ellipse((30, 30, 90, 90), fill=(40, 60, 90))


@pytest.mark.parametrize("quality", [None, 60, 90])
def test_an_object_is_cut_out_without_its_jpeg_rings(quality):
    mask = cutout.cutout(drawn(disc, quality))
    y, x = np.mgrid[:SIDE, :SIDE]
    distance = np.hypot(x - 60, y - 60)
    assert mask[distance < 27].min() == 255
    assert mask[distance > 37].max() == 0


def test_holes_are_background_and_highlights_are_not():
    def ring(pen):
        disc(pen)
        pen.ellipse((45, 45, 75, 75), fill="white")  # a hole that shows the wall
        pen.rectangle((38, 60, 39, 61), fill="white")  # a glint

    mask = cutout.cutout(drawn(ring))
    assert mask[60, 60] == 0
    assert mask[60, 38] == 255


def test_a_white_object_stays_whole():
    def helmet(pen):
        pen.ellipse((20, 20, 100, 100), fill=(246, 247, 248), outline=(150, 150, 150), width=2)
        pen.rectangle((40, 19, 42, 23), fill="white")  # its outline is broken

    mask = cutout.cutout(drawn(helmet))
    assert mask[32:88, 45:75].min() == 255
    assert mask[:15].max() == 0


def test_edges_are_soft_and_give_back_the_picture():
    image = Image.new("RGB", (480, 480), "white")
    ImageDraw.Draw(image).ellipse((100, 100, 380, 380), fill=(30, 90, 30))
    small = image.resize((SIDE, SIDE), Image.Resampling.BOX)
    rgba = np.dstack([np.asarray(small), np.full((SIDE, SIDE), 255, np.uint8)])
    mask = cutout.cutout(rgba)
    exact = (255 - rgba[..., 0]) / (255 - 30)
    assert ((mask > 0) & (mask < 255)).any()
    np.testing.assert_allclose(mask / 255, exact, atol=0.12)


def test_transparency_is_the_mask():
    opacity = np.zeros((20, 30), np.uint8)
    opacity[5:15, 10:20] = 200
    file = io.BytesIO()
    Image.fromarray(np.dstack([np.zeros((20, 30, 3), np.uint8), opacity])).save(file, "PNG")
    rgba = load_rgba(file.getvalue(), "drawn")
    np.testing.assert_array_equal(cutout.cutout(rgba), opacity)
    assert rgba[0, 0].tolist() == [255, 255, 255, 0]


def test_a_photograph_with_its_own_background_is_all_object():
    scene = np.random.default_rng(0).integers(0, 200, (40, 50, 4), np.uint8)
    scene[..., 3] = 255
    assert cutout.cutout(scene).min() == 255
    assert cutout.cutout(np.full((40, 50, 4), 255, np.uint8)).min() == 255  # all white


def test_masks_lie_on_their_letterboxed_pixels_and_are_kept(tmp_path, monkeypatch):
    root = tmp_path / "set"
    for name, box in {"a": (5, 2, 25, 18), "b": (20, 2, 39, 10)}.items():
        (root / name).mkdir(parents=True)
        image = Image.new("RGB", (44, 20), "white")
        ImageDraw.Draw(image).rectangle(box, fill=(200, 30, 30))
        image.save(root / name / "1.png")
    folder = read_folder(root, size=32)
    images = pixels(folder, 32)
    whole = Split(images, np.arange(2, dtype=np.int32), folder.records)
    found = cutout.with_masks(whole, folder).images[:][..., 3]
    assert (images[..., 1][found == 0] > 240).all()
    assert found[0].max() == 255
    side = cutout.with_masks(Split(images[1:], np.array([1], np.int32), folder.records[1:]), folder)
    np.testing.assert_array_equal(side.images[0], np.dstack([images[1], found[1]]))

    def never(rgba):
        raise AssertionError

    monkeypatch.setattr(cutout, "cutout", never)
    np.testing.assert_array_equal(cutout.with_masks(whole, folder).images[:][..., 3], found)
