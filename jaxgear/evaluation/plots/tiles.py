"""Tiles of a grid: test images with their labels, new images with their predictions."""

import os
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from jaxtyping import Float

from jaxgear.bundle import Bundle
from jaxgear.data.dataset import Split
from jaxgear.data.images import ImageError, letterbox, load_rgb
from jaxgear.evaluation.plots import figures as plots
from jaxgear.prediction import NONE, Prediction
from jaxgear.text import printable

TESTED = 24  # tiles of test images
MOST = 40  # tiles of new images
PIXELS = 440  # side of an image when the grid has a single one

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

    Images of the bundle's data are marked. At most the first `MOST` are shown, read again from
    their files at a higher resolution than the network's.

    Args:
        predictions: the results of `prediction.predict`, or one result.
        total: the number of images, if `predictions` are only the first of them.

    Raises:
        ValueError: no predictions.
    """
    predictions = [predictions] if isinstance(predictions, Prediction) else list(predictions)
    if not predictions:
        raise ValueError("no predictions, so there is nothing to show")
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


def _tile(prediction: Prediction, classes: Sequence[str]) -> plots.Tile:
    name = printable(Path(prediction.path).name)
    if prediction.probs is None:
        return plots.Tile(None, "no prediction", prediction.error or "", name)
    try:
        image = letterbox(load_rgb(prediction.path), PIXELS)
    except ImageError:  # gone or changed since
        image = prediction.image
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
