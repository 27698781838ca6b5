"""Figures show what they were given."""

from dataclasses import replace

import numpy as np
import PIL.Image
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg

from jaxgear.evaluation.plots import figures as plots
from jaxgear.evaluation.plots import learning_curves
from jaxgear.training.history import Row


def rows(losses):
    return [Row(i, i, 1.0 / i, loss, 0.5, 0.6, 0.1, 1.0) for i, loss in enumerate(losses, 1)]


def test_a_curve_that_blows_up_does_not_squeeze_the_others_flat():
    usual, blown = rows([1.0, 0.5, 0.4]), rows([24.0, 3.0, 0.5])
    for runs, scale in (([usual], "linear"), ([blown], "log"), ([usual, usual, blown], "log")):
        (losses, _) = learning_curves.runs({"A": runs}).axes
        assert losses.get_yscale() == scale
        assert ("the highest is 24" in losses.get_ylabel()) == (scale == "log")
    assert learning_curves.curves(blown).axes[0].get_yscale() == "log"
    for beside in ({"a": usual, "b": blown}, {"b": blown, "a": usual}):
        figure = learning_curves.curves_beside(beside)
        assert [axes.get_yscale() for axes in figure.axes] == ["log", "log"]
        figure.draw_without_rendering()
    assert learning_curves.curves(usual).axes[0].get_ylim()[0] == 0


def test_the_numbers_of_a_logarithmic_axis_leave_its_label_its_place():
    """Of less than a decade, numbers between powers of ten are written too."""
    figure = learning_curves.curves([replace(row, train_loss=3.0) for row in rows([14, 6, 2.5])])
    renderer = FigureCanvasAgg(figure).get_renderer()
    figure.draw(renderer)
    assert figure.axes[0].get_yscale() == "log"
    assert figure.axes[0].yaxis.label.get_window_extent(renderer).x0 >= 0


def test_the_axes_of_losses_hold_all_markers_from_the_first_epoch_on():
    """A notebook draws the curves after one epoch; a panel beside it may have higher losses."""
    losses = learning_curves.curves(rows([0.9])).axes[0]
    low, high = losses.get_xlim()
    assert [tick for tick in losses.get_xticks() if low < tick < high] == [1]
    assert losses.get_ylim() == (0, pytest.approx(1.05))
    for order in ((1.0, 2.0), (2.0, 1.0)):
        figure = learning_curves.curves_beside({str(loss): rows([loss]) for loss in order})
        assert {axes.get_ylim() for axes in figure.axes} == {(0, 2.1)}
    compared = learning_curves.runs({"A": [rows([0.5, 0.25])]}).axes[0]  # shows validation alone
    assert compared.get_ylim() == (0, pytest.approx(0.525))


def test_curves_show_every_epoch_and_mark_the_best():
    figure = learning_curves.curves(rows([3.0, 1.0, 2.0]), "a run")
    losses, accuracies = figure.axes
    train, val = losses.lines[:2]
    np.testing.assert_array_equal(train.get_ydata(), [1.0, 0.5, 1 / 3])
    np.testing.assert_array_equal(val.get_ydata(), [3.0, 1.0, 2.0])
    assert [t.get_text() for t in losses.get_legend().get_texts()] == [
        "training (as optimised)",
        "validation",
    ]
    assert "best epoch 2" in losses.get_title()
    assert losses.get_xlabel() == "epoch"
    assert "accuracy" in accuracies.get_ylabel()


def test_confusion_prints_counts_and_classes():
    figure = plots.confusion([[5, 1], [0, 7]], ["axes", "boots"])
    axes = figure.axes[0]
    assert sorted(t.get_text() for t in axes.texts) == ["1", "5", "7"]  # the empty cell is empty
    assert [t.get_text() for t in axes.get_yticklabels()] == ["axes", "boots"]


@pytest.mark.parametrize("classes", [41, 1000])
def test_confusion_of_many_classes_is_of_those_that_are_confused(classes, tmp_path):
    """The others are one; every picture counts; what is drawn is no larger than for 40 classes."""
    table = 7 * np.eye(classes, dtype=int)
    table[3, classes - 2] = 5
    names = [f"class {i}" for i in range(classes)]
    figure = plots.confusion(table, names)
    axes = figure.axes[0]
    labels = [label.get_text() for label in axes.get_yticklabels()]
    assert len(labels) == plots.MOST_CLASSES
    assert {"class 3", f"class {classes - 2}", f"{classes - 39} others"} <= set(labels)
    assert sum(int(text.get_text()) for text in axes.texts) == table.sum()
    assert max(figure.get_size_inches()) <= 24
    png = plots.png(figure)
    assert len(png) < 2_000_000


def test_confusion_of_forty_classes_is_whole():
    figure = plots.confusion(np.eye(40, dtype=int), [f"class {i}" for i in range(40)])
    assert figure.axes[0].get_yticklabels()[-1].get_text() == "class 39"


def test_grid_of_many_pictures_with_long_names_is_bounded():
    tiles = [plots.Tile(np.zeros((8, 8, 3), np.uint8), "t" * 10_000, "d" * 10_000)] * 5000
    figure = plots.grid(tiles, "a run with a long name " * 1000)
    assert len(figure.axes) == plots.MOST_TILES
    assert figure.get_suptitle().startswith("The first 60 of 5000. a run")
    assert max(figure.get_size_inches()) < 40
    small = plots.grid(tiles[:1], "W" * 5000)
    assert max(small.get_size_inches()) < 8
    assert len(plots.png(figure, dpi=20)) < 1_000_000


def test_confusion_of_classes_with_odd_names(tmp_path):
    plots.save(plots.confusion(np.eye(3, dtype=int), ["雪", "$", "x" * 90]), tmp_path / "c.png")


@pytest.mark.parametrize("n", [1, 5, 24, 40])
def test_grid_has_a_titled_cell_a_picture(n, tmp_path):
    image = np.zeros((8, 8, 3), np.uint8)
    tiles = [plots.Tile(image, f"rope {i}", wrong=i == 0) for i in range(n)]
    figure = plots.grid(tiles, "title")
    shown = [axes for axes in figure.axes if axes.get_visible()]
    assert [axes.get_title() for axes in shown] == [f"rope {i}" for i in range(n)]
    plots.save(figure, tmp_path / "grid.png")
    with PIL.Image.open(tmp_path / "grid.png") as picture:
        assert picture.format == "PNG"
    assert [p.name for p in tmp_path.iterdir()] == ["grid.png"]


def test_odd_names_and_unreadable_pictures_are_drawn(tmp_path):
    tiles = [plots.Tile(None, "$x^2$ _"), plots.Tile(None, "Ü雪" * 40, "d" * 90)]
    figure = plots.grid(tiles)
    assert "unreadable" in figure.axes[0].texts[0].get_text()
    assert len(figure.axes[1].get_title()) <= 40
    plots.save(figure, tmp_path / "odd.png")


def test_the_same_figure_is_the_same_bytes(tmp_path):
    for name in ("a.png", "b.png"):
        plots.save(learning_curves.curves(rows([1.0, 2.0])), tmp_path / name)
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
