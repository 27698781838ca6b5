"""Grids name what they show, at a resolution to look at, and mark what is not new."""

import dataclasses

import numpy as np
import pytest
from pictures import encoded, scene, write_set
from small_bundle import make_bundle

from jaxgear.data.dataset import Split, open_dataset
from jaxgear.evaluation.plots import figures as plots
from jaxgear.evaluation.plots import tiles
from jaxgear.prediction.predictor import Prediction

BUNDLE = make_bundle()
PROBS = np.array([0.2, 0.1, 0.7], np.float32)


def prediction(path, **changes):
    image = np.zeros((16, 16, 3), np.uint8)
    fields = {"image": image, "probs": PROBS, "sha256": "0" * 64} | changes
    return Prediction(str(path), **fields)


@pytest.fixture
def picture(tmp_path):
    path = tmp_path / "Ü雪 $x$.png"
    path.write_bytes(encoded(scene(1, 600, 800)))
    return path


def texts(axes):
    return [axes.get_title(), *(text.get_text() for text in axes.texts)]


def test_class_probability_second_guess_and_name(picture):
    figure = tiles.prediction_grid(BUNDLE, [prediction(picture)])
    (axes,) = figure.axes
    title, second, name = texts(axes)
    assert (title, second) == ("hardshell jackets 0.70", "then axes 0.20")
    assert name.startswith("Ü")
    assert name.endswith(" $x$.png")
    assert axes.images[0].get_array().shape == (tiles.PIXELS, tiles.PIXELS, 3)
    assert figure.get_suptitle().replace("\n", " ") == (
        "1 picture, classified by scratch-20260101-120000 (validation accuracy 0.900)"
    )


def test_one_prediction_or_a_generator_of_them_is_shown(picture):
    for given, count in ((prediction(picture), 1), ((prediction(picture) for _ in range(2)), 2)):
        assert len(tiles.prediction_grid(BUNDLE, given).axes) == count


def test_maps_of_what_could_be_read_over_the_pictures(picture):
    found = [
        *(prediction(path, image=scene(1, 16, 16)) for path in (picture, "gone.png")),
        Prediction("a.jpg", error="empty file"),
    ]
    figure = tiles.heat_map_grid(BUNDLE, found)
    read, gone = figure.axes
    assert read.get_title() == gone.get_title() == "hardshell jackets 0.70"
    shown = read.images[0].get_array()
    assert shown.shape == (tiles.PIXELS, tiles.PIXELS, 3)
    plain = tiles.prediction_grid(BUNDLE, found[:1]).axes[0].images[0].get_array()
    assert not np.array_equal(shown, plain)
    assert gone.images[0].get_array().shape == (16, 16, 3)  # as the network saw it
    assert figure.get_suptitle() == "What speaks for the class (Grad-CAM)"
    with pytest.raises(ValueError, match="no picture could be read"):
        tiles.heat_map_grid(BUNDLE, found[2:])


def test_the_first_training_pictures_of_each_class(tmp_path):
    write_set(tmp_path, {"axes": 12, "rope_bags": 12})
    dataset = open_dataset(str(tmp_path), size=16, seed=0, say=lambda line: None)
    figure = tiles.training_grid(dataset, each=2)
    assert [axes.get_title() for axes in figure.axes] == ["axes", "axes", "rope bags", "rope bags"]
    train = dataset.split("train")
    first = train.images[np.flatnonzero(train.labels == 1)[0]]
    np.testing.assert_array_equal(figure.axes[2].images[0].get_array(), first)


def test_filters_are_grey_at_zero_and_colourful_elsewhere():
    kernel = np.zeros((3, 3, 3, 4), np.float32)
    kernel[0, 0, 0], kernel[2, 2, 2] = 0.5, -1.0  # red for, blue against
    kernel[..., 1] = 0
    weights = BUNDLE.weights | {"params/layers_0/conv/kernel": kernel}
    figure = tiles.filters(dataclasses.replace(BUNDLE, weights=weights))
    shown = [axes.images[0].get_array() for axes in figure.axes]
    assert len(shown) == 4
    np.testing.assert_array_equal(shown[1], np.full((3, 3, 3), 0.5))
    np.testing.assert_allclose(shown[3][1, 1], 0.5)
    np.testing.assert_allclose(shown[3][0, 0], [0.75, 0.5, 0.5])
    np.testing.assert_allclose(shown[3][2, 2], [0.5, 0.5, 0.0])
    with pytest.raises(ValueError, match="red, green and blue"):
        tiles.filters(dataclasses.replace(BUNDLE, weights={"params/head/kernel": np.ones((3, 3))}))


def test_photographs_are_kept_as_jpeg_by_a_notebook_and_as_png_on_disk(picture, tmp_path):
    figure = tiles.prediction_grid(BUNDLE, prediction(picture))
    assert figure._repr_png_ is None
    assert figure._repr_jpeg_().startswith(b"\xff\xd8")
    plots.save(figure, tmp_path / "grid.png")
    assert (tmp_path / "grid.png").read_bytes().startswith(b"\x89PNG")


def test_of_nothing_there_is_no_grid():
    with pytest.raises(ValueError, match="no predictions"):
        tiles.prediction_grid(BUNDLE, [])
    with pytest.raises(ValueError, match="no pictures"):
        plots.grid([])


@pytest.mark.parametrize(("split", "words"), [("train", "training data"), ("test", "test data")])
def test_a_picture_of_the_data_set_is_marked(picture, split, words):
    marked = tiles.prediction_grid(BUNDLE, [prediction(picture, split=split)]).axes[0]
    assert any(words in text for text in texts(marked))


def test_unreadable_and_vanished_pictures(picture):
    bad = Prediction("a.jpg", error="empty file")
    gone = prediction(picture.with_name("gone.png"))
    first, second = tiles.prediction_grid(BUNDLE, [bad, gone]).axes
    assert texts(first) == ["no prediction", "unreadable", "empty file", "a.jpg"]
    assert second.images[0].get_array().shape == (16, 16, 3)


def test_of_many_the_first_are_shown_and_the_title_says_so(picture):
    many = [prediction(picture)] * (tiles.MOST + 3)
    for shown, total in ((many, None), (many[: tiles.MOST], len(many))):
        figure = tiles.prediction_grid(BUNDLE, shown, total)
        assert len(figure.axes) == tiles.MOST
        assert figure.get_suptitle().startswith("The first 40 of 43 pictures")


def test_test_pictures_that_are_refused_say_so():
    """Wrong ones first and marked; a low score is said of right and wrong ones alike."""
    logits = np.array([[4, 0, 0], [0, 3, 0], [0, 0, 1], [1, 0, 0]], np.float32)
    split = Split(np.zeros((4, 16, 16, 3), np.uint8), np.array([0, 0, 2, 1], np.int32), ())
    shown = tiles.test_tiles(dataclasses.replace(BUNDLE, accept_from=2.0), split, logits)
    assert [(one.title, one.detail.rpartition(" ")[0]) for one in shown[:2]] == [
        ("axes", "taken for boots"), ("boots", "taken for axes")
    ]  # fmt: skip
    assert [one.title.split()[0] for one in shown[2:]] == ["axes", "hardshell"]
    assert not any(one.detail for one in shown[2:])
    assert [one.wrong for one in shown] == [True, True, False, False]
    assert ["refused" in one.warning for one in shown] == [False, True, False, True]
    assert not any(one.warning for one in tiles.test_tiles(BUNDLE, split, logits))


@pytest.mark.parametrize("n", [1, 2, 5, 13])
def test_nothing_overlaps_and_nothing_is_cut_off(n):
    """Every text is on the page, and no two texts or pictures of a grid touch."""
    tile = plots.Tile(np.zeros((8, 8, 3), np.uint8), "W" * 80, "l" * 200, "Ü雪" * 50, "seen", True)
    figure = plots.grid([tile] * n, "a title of a run with a rather long name " * 3)
    figure.canvas.draw()
    page = figure.bbox
    texts = [text for axes in figure.axes for text in (axes.title, *axes.texts)]
    boxes = [text.get_window_extent() for text in (*texts, figure._suptitle)]
    boxes += [axes.get_window_extent() for axes in figure.axes]
    for number, box in enumerate(boxes):
        assert page.x0 <= box.x0 < box.x1 <= page.x1
        assert page.y0 <= box.y0 < box.y1 <= page.y1
        for other in boxes[:number]:
            assert min(box.x1, other.x1) - max(box.x0, other.x0) < 1 or (
                min(box.y1, other.y1) - max(box.y0, other.y0) < 1
            )


def test_a_notebook_shows_a_figure():
    assert plots.confusion([[1]], ["a"])._repr_png_().startswith(b"\x89PNG")
