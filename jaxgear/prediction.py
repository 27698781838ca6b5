"""A bundle and pictures -> logits: the one way, for evaluation and prediction."""

import sys
from pathlib import Path

import numpy as np
from jaxtyping import Float

from jaxgear.bundle import Bundle
from jaxgear.data.batches import Batches
from jaxgear.data.dataset import Side
from jaxgear.data.folder import OnBad, pixels, read_folder, require_clean
from jaxgear.errors import DataError
from jaxgear.training import loop
from jaxgear.training.progress import Progress


def open_folder(root: Path, bundle: Bundle, on_bad: OnBad) -> Side:
    """All pictures of a folder, labelled in the order of the bundle's classes.

    Raises:
        DataError: a class folder that the bundle does not know.
    """
    folder = require_clean(read_folder(root, size=bundle.size, min_classes=1), on_bad)
    for name in folder.classes:
        if name not in bundle.classes:
            raise DataError(
                f"{root / name}: the model knows no class {name!r}, only "
                f"{', '.join(bundle.classes)}"
            )
    for name in bundle.classes:
        if name not in folder.classes:
            print(f"warning: {root} has no pictures of class {name}", file=sys.stderr)
    order = np.array([bundle.classes.index(name) for name in folder.classes], np.int32)
    labels = order[[record.label for record in folder.records]]
    return Side(pixels(folder, bundle.size), labels, folder.records)


def logits(bundle: Bundle, side: Side, batch_size: int = 64) -> Float[np.ndarray, "N K"]:
    """Logits of every picture, whatever the batch size."""
    batches = Batches(side.images, side.labels, min(batch_size, len(side.labels)))
    evaluator = loop.Evaluator(bundle.model.apply, bundle.variables, batches, Progress(quiet=True))
    return evaluator(bundle.variables, batches)[1]
