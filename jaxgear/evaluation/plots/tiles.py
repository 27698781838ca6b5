"""Grids of images: with their labels, with predictions, with heat maps; and a network's filters."""

import os
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from jaxtyping import Float, UInt8

from jaxgear.bundle import Bundle
from jaxgear.data.dataset import Dataset, Split
from jaxgear.data.images import ImageError, letterbox, load_rgb
from jaxgear.evaluation import explain
from jaxgear.evaluation.plots import figures as plots
from jaxgear.prediction import NONE, Prediction
from jaxgear.text import printable

TESTED = 24  # tiles of test images
MOST = 40  # tiles of new images
PIXELS = 440  # side of an image when the grid has a single one
FILTERS = 16  # filters in a row
MARGINS = {"left": 0, "right": 1, "bottom": 0, "top": 1, "wspace": 0.1, "hspace": 0.1}

_REFUSED = f"refused: {NONE} of the classes"
_SEEN = {
    "train": "in the training data",
    "val": "in the validation data",
    "test": "in the test data",
    "left_out": "in the data set, left out",
}


def prediction_grid(
    bundle: Bundle, predictions: Prediction | Iterable[Prediction], total: int | None = None
) -> plots.Figure:
    """A grid of new images: class and probability above, second guess and file name below.

    >>> model = jaxgear.Bundle.load("RUN")
    >>> figure = jaxgear.prediction_grid(model, jaxgear.predict(model, "new/"))
    >>> len(figure.axes)
    5

    Images of the bundle's data are marked. At most the first `MOST` are shown, read again from
    their files at a higher resolution than the network's.

    Args:
        predictions: the results of `prediction.predict`, or one result.
        total: the number of images, if `predictions` are only the first of them.

    Raises:
        ValueError: no predictions.
    """
    predictions = _listed(predictions)
    total = total or len(predictions)
    shown = predictions[:MOST]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        tiles = list(pool.map(lambda prediction: _tile(prediction, bundle.classes), shown))
    count = f"{total} picture{'s' * (total != 1)}"
    title = count if total == len(shown) else f"The first {len(shown)} of {count}"
    if run := bundle.about.get("run"):
        title += f", classified by {run}"
    if accuracy := bundle.about.get("val_accuracy"):
        title += f" (validation accuracy {accuracy:.3f})"
    return plots.grid(tiles, title)


def heat_map_grid(bundle: Bundle, predictions: Prediction | Iterable[Prediction]) -> plots.Figure:
    """A grid of new images, each under a map of what speaks for its likeliest class.

    Red speaks most for it, then yellow and green (`explain.heat_maps`). At most the first `MOST`
    images are shown.

    Raises:
        ValueError: no predictions, or none of them of an image that could be read.
    """
    shown = [found for found in _listed(predictions) if found.probs is not None][:MOST]
    if not shown:
        raise ValueError("no picture could be read, so there is nothing to show")
    maps = explain.heat_maps(bundle, np.stack([prediction.image for prediction in shown]))
    tiles = []
    for prediction, heat in zip(shown, maps, strict=True):
        image = _image(prediction)
        best = prediction.probs.argmax()
        title = f"{_words(bundle.classes[best])} {prediction.probs[best]:.2f}"
        name = printable(Path(prediction.path).name)
        tiles.append(plots.Tile(explain.overlay(image, heat), title, name=name))
    return plots.grid(tiles, f"What speaks for the class ({explain.method(bundle)})")


def training_grid(dataset: Dataset, each: int = 1) -> plots.Figure:
    """A grid of the first `each` training images of every class."""
    split = dataset.split("train")
    tiles = [
        plots.Tile(split.images[row], _words(name))
        for label, name in enumerate(dataset.classes)
        for row in np.flatnonzero(split.labels == label)[:each]
    ]
    title = f"Training pictures, as the network sees them: {dataset.size} pixels"
    return plots.grid(tiles, title, columns=min(6, len(tiles)))


def filters(bundle: Bundle) -> plots.Figure:
    """The filters of the first convolution, one small picture each; grey stands for 0.

    Raises:
        ValueError: no convolution of the network takes red, green and blue.
    """
    kernels = [w for w in bundle.weights.values() if w.ndim == 4 and w.shape[2] == 3]
    if not kernels:
        raise ValueError("no convolution of this network takes red, green and blue")
    kernel = np.float32(kernels[0])  # [h, w, 3, F]
    shown = 0.5 + kernel / (2 * np.abs(kernel).max(axis=(0, 1, 2)) + 1e-12)
    columns = min(FILTERS, shown.shape[-1])
    rows = -(-shown.shape[-1] // columns)
    figure = plots.Figure(figsize=(0.7 * columns, 0.7 * rows))
    axes = figure.subplots(rows, columns, squeeze=False, gridspec_kw=MARGINS).ravel()
    for axis in axes:
        axis.set_axis_off()
    for axis, patch in zip(axes, np.moveaxis(shown, -1, 0), strict=False):
        axis.imshow(patch)
    return figure


def _listed(predictions: Prediction | Iterable[Prediction]) -> list[Prediction]:
    predictions = [predictions] if isinstance(predictions, Prediction) else list(predictions)
    if not predictions:
        raise ValueError("no predictions, so there is nothing to show")
    return predictions


def _image(prediction: Prediction) -> UInt8[np.ndarray, "S S 3"]:
    """The image at a resolution to look at, or, if the file has gone or changed, as it was seen."""
    try:
        return letterbox(load_rgb(prediction.path), PIXELS)
    except ImageError:
        return prediction.image


def _tile(prediction: Prediction, classes: Sequence[str]) -> plots.Tile:
    name = printable(Path(prediction.path).name)
    if prediction.probs is None:
        return plots.Tile(None, "no prediction", prediction.error or "", name)
    image = _image(prediction)
    best, *others = np.argsort(-prediction.probs, kind="stable")
    if prediction.refused:
        title, second = NONE, f"no gear; most like {_words(classes[best])}"
        return plots.Tile(image, title, second, name, _SEEN.get(prediction.split, ""))
    second = (
        f"then {_words(classes[others[0]])} {prediction.probs[others[0]]:.2f}" if others else ""
    )
    return plots.Tile(
        image,
        f"{_words(classes[best])} {prediction.probs[best]:.2f}",
        second,
        name,
        _SEEN.get(prediction.split, ""),
    )


def test_tiles(bundle: Bundle, split: Split, logits: Float[np.ndarray, "N K"]) -> list[plots.Tile]:
    """Tiles of wrong images, the most confident first, then of right ones of each class in turn.

    Images that the model refuses as no gear are marked.
    """
    probs, scores = bundle.probs(logits), bundle.score(logits)
    predicted, sure = probs.argmax(axis=1), probs.max(axis=1)
    wrong = np.flatnonzero(predicted != split.labels)
    wrong = wrong[np.argsort(-sure[wrong])][: TESTED // 2]
    right = np.flatnonzero(predicted == split.labels)
    right = right[np.argsort(split.labels[right], kind="stable")]
    of_class = split.labels[right]
    place = np.arange(len(right)) - np.searchsorted(of_class, of_class)  # within its class
    right = right[np.lexsort((of_class, place))][: TESTED - len(wrong)]
    names = [_words(name) for name in bundle.classes]
    return [
        plots.Tile(
            split.images[i],
            *_verdict(names[split.labels[i]], names[predicted[i]], sure[i]),
            warning=_REFUSED if bundle.refuses(scores[i]) else "",
            wrong=bool(predicted[i] != split.labels[i]),
        )
        for i in (*wrong, *right)
    ]


def _verdict(true: str, predicted: str, sure: np.floating) -> tuple[str, str]:
    """Title and detail of a test image: its class, and the predicted class if that differs."""
    if true == predicted:
        return f"{true} {sure:.2f}", ""
    return true, f"taken for {predicted} {sure:.2f}"


def _words(name: str) -> str:
    return name.replace("_", " ")
