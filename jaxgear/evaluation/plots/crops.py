"""A grid of photographs with the boxes of gear in them."""

import os
from collections import Counter
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from jaxgear.bundle import Bundle
from jaxgear.data.crops import parted
from jaxgear.data.images import ImageError, letterbox, load_rgb
from jaxgear.evaluation.plots import figures as plots
from jaxgear.prediction import Prediction
from jaxgear.text import printable

PIXELS = 640  # longer side of a photograph
COLUMNS = 3
_COLOURS = (  # dark enough for white letters; classes beyond these begin again
    *("#1b6ca8", "#b3261e", "#2e7d32", "#7b3fa0", "#a35200", "#00707a"),
    *("#c2186b", "#4d5b00", "#3949ab", "#6d4c41", "#455a64", "#8a6d00"),
)


def crops_grid(bundle: Bundle, photographs: Sequence[Sequence[Prediction]], total: int):
    """A tile for each photograph: its boxes with class and probability, and a count by class.

    Args:
        photographs: for each, the predictions of its crops of gear, or of itself if it has none.
        total: the number of photographs, if these are only the first ones.
    """
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        tiles = list(pool.map(lambda found: _tile(found, bundle.classes), photographs))
    count = f"{total} photograph{'s' * (total != 1)}"
    title = count if total == len(tiles) else f"The first {len(tiles)} of {count}"
    if run := bundle.about.get("run"):
        title += f", crops classified by {run}"
    return plots.grid(tiles, title, columns=min(COLUMNS, len(tiles)))


def _tile(predictions: Sequence[Prediction], classes: Sequence[str]) -> plots.Tile:
    first = predictions[0]
    path, _ = parted(first.path)
    name = printable(Path(path).name)
    if first.probs is None:
        return plots.Tile(None, "no prediction", first.error or "", name)
    try:
        photograph = load_rgb(path)
    except ImageError as error:  # gone since
        return plots.Tile(None, "no picture", error.reason, name)
    image = letterbox(photograph, PIXELS)
    crops = [one for one in predictions if not one.refused]
    if not crops:
        return plots.Tile(image, "none", "no crop is gear", name)
    boxes = [_box(one, photograph.shape[:2], classes) for one in reversed(crops)]
    words = [one.name(classes).replace("_", " ") for one in crops]
    detail = ", ".join(f"{count} {word}" for word, count in Counter(words).most_common())
    title = f"{len(crops)} crop{'s' * (len(crops) != 1)}"
    return plots.Tile(image, title, detail, name, boxes=boxes)


def _box(
    prediction: Prediction, shape: Iterable[int], classes: Sequence[str]
) -> tuple[tuple[float, float, float, float], str, str]:
    """The box of a crop in pixels of the letterboxed photograph, its label and colour."""
    height, width = np.array(tuple(shape)) * (PIXELS / max(shape))
    _, box = parted(prediction.path)
    left, top, right, bottom = np.array(box) * (width, height, width, height)
    x, y = (PIXELS - width) / 2 - 0.5, (PIXELS - height) / 2 - 0.5
    best = int(prediction.probs.argmax())
    label = f"{classes[best].replace('_', ' ')} {prediction.probs[best]:.2f}"
    corners = (left + x, top + y, right + x, bottom + y)
    return corners, label, _COLOURS[best % len(_COLOURS)]
