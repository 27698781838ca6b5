"""Logits and probabilities of images by a bundle, for both evaluation and prediction."""

import functools
import hashlib
import itertools
import os
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jaxtyping import Float, UInt8

from jaxgear.bundle import Bundle
from jaxgear.data.crops import read_bytes
from jaxgear.data.dataset import Split
from jaxgear.data.folder import LazyPictures, Refused, labels_of, pixels, shrink
from jaxgear.data.images import ImageError, letterbox, load_letterboxed
from jaxgear.data.images.threads import in_order
from jaxgear.data.labels import corrected, read_labels
from jaxgear.data.sources import InMemory, find_pictures, read_source, to_rgb
from jaxgear.data.splits import OnBad, require_clean
from jaxgear.errors import CheckpointError, DataError
from jaxgear.machine.compile_cache import keep_compiled
from jaxgear.notebook import bars, picture
from jaxgear.program import running
from jaxgear.text import few, printable

NONE = "none"  # the class name of a refused image
MOST_BARS = 4  # classes of a prediction that a notebook shows


@dataclass(frozen=True, eq=False, repr=False)
class Prediction:
    """The prediction for one file: either `image`, `probs` and `sha256`, or `error`.

    A notebook shows the image and its likeliest classes.
    """

    path: str
    image: UInt8[np.ndarray, "S S 3"] | None = None  # as the network saw it
    probs: Float[np.ndarray, " K"] | None = None  # calibrated, in the order of the bundle's classes
    sha256: str | None = None  # of the file, hex
    split: str | None = None  # if the file is in the bundle's data: train, val, test or left_out
    error: str | None = None  # why it could not be read
    score: float | None = None  # of gear (`Bundle.score`)
    refused: bool = False  # the score is too low for gear
    descriptor: bytes | None = None  # for near-duplicates, if it was asked for
    classes: tuple[str, ...] = ()  # of the bundle

    def __repr__(self) -> str:
        if self.probs is None or not self.classes:
            return f"<Prediction {self.path}: {self.error or 'not classified'}>"
        return f"<Prediction {self.path}: {self.name(self.classes)} {self.probs.max():.2f}>"

    def _repr_html_(self) -> str | None:
        if self.probs is None or not self.classes:
            return None
        likeliest = np.argsort(-self.probs, kind="stable")[:MOST_BARS]
        shares = [(self.classes[k], float(self.probs[k])) for k in likeliest]
        title = f"{printable(self.path)}: {self.name(self.classes)}"
        return picture(self.image, title) + bars(title, shares)

    def name(self, classes: Sequence[str]) -> str:
        """The likeliest class, or `NONE` if refused; only for an image that was read."""
        return NONE if self.refused else classes[int(self.probs.argmax())]


class Predictor:
    """A bundle's network, compiled once for batches of `batch_size` images."""

    def __init__(self, bundle: Bundle, batch_size: int = 64):
        """Compiles the program; CheckpointError if it cannot run."""
        keep_compiled()
        self.bundle = bundle
        self.batch_size = bundle.program.batch or batch_size
        self._weights = jax.device_put(bundle.weights)
        step = jax.jit(bundle.program.logits)
        shape = (self.batch_size, bundle.size, bundle.size, 3)
        images = jax.ShapeDtypeStruct(shape, np.uint8)
        with running("the model's program"):
            self._step = step.lower(self._weights, images).compile()

    def start(self, images: UInt8[np.ndarray, "n S S 3"]) -> jax.Array:
        """Starts computing logits [batch_size, K] of up to `batch_size` images; does not wait."""
        missing = self.batch_size - len(images)
        padded = np.pad(images, ((0, missing), (0, 0), (0, 0), (0, 0))) if missing else images
        return self._step(self._weights, padded)

    def logits(
        self, images: UInt8[np.ndarray, "N S S 3"] | LazyPictures
    ) -> Float[np.ndarray, "N K"]:
        """Logits of any number of images."""
        parts = [
            np.asarray(self.start(images[first : first + self.batch_size]))
            for first in range(0, len(images), self.batch_size)
        ]
        none = np.zeros((0, len(self.bundle.classes)), np.float32)
        logits = np.concatenate([none, *parts])[: len(images)]
        if not np.isfinite(logits).all():
            raise CheckpointError("the model's output is not finite: its weights are unusable")
        return logits

    def probs(self, images: UInt8[np.ndarray, "N S S 3"]) -> Float[np.ndarray, "N K"]:
        """Calibrated probabilities of any number of images."""
        return self.bundle.probs(self.logits(images))


def predict(bundle: Bundle, sources: Any, batch_size: int = 64) -> Iterator[Prediction]:
    """Yields one prediction per image, in order, as soon as it is ready.

    >>> model = jaxgear.Bundle.load("RUN")
    >>> predictions = list(jaxgear.predict(model, "new/"))
    >>> predictions[0]
    <Prediction new/...: ...>
    >>> predictions[0].name(model.classes) in model.classes
    True

    Threads decode the next images while the network works on a batch. Memory holds about three
    batches of images at a time.

    Args:
        sources: a file, folder or pattern, or an image (PIL image, u8 [H, W, 3] array, bytes of a
            file, binary file), or several of these. Images in memory are called `<picture 1>` and
            so on.

    Raises:
        DataError: a folder has no images, or a pattern matches nothing.
        TypeError: a source is none of these.
    """
    return predict_files(bundle, find_pictures(sources), batch_size)


def predict_files(
    bundle: Bundle,
    files: list[Path | Refused | InMemory],
    batch_size: int = 64,
    *,
    describe: bool = False,
    predictor: Predictor | None = None,
) -> Iterator[Prediction]:
    """`predict` for a list of files.

    Args:
        describe: with descriptors of the files.
        predictor: of the bundle, if one is compiled already; its batch size counts.
    """
    # Few images are not padded to 64. Powers of two keep the number of compiled programs small.
    most = 1 << max(0, len(files) - 1).bit_length()
    batch_size = bundle.program.batch or min(batch_size, most)
    batch_size = predictor.batch_size if predictor else batch_size
    pool = ThreadPoolExecutor(os.cpu_count())  # Pillow releases the GIL while it decodes
    try:
        # Compiles while others decode.
        ready = pool.submit(lambda: predictor or Predictor(bundle, batch_size))
        read = in_order(pool, functools.partial(_read, bundle, describe), files, batch_size)
        before: tuple[list[Prediction], jax.Array] | None = None
        while chunk := list(itertools.islice(read, batch_size)):
            images = [prediction.image for prediction in chunk if prediction.image is not None]
            none = np.zeros((0, bundle.size, bundle.size, 3), np.uint8)
            started = ready.result().start(np.stack(images) if images else none)
            if before is not None:  # yield the last batch while the device works on this one
                yield from _finish(bundle, *before)
            before = chunk, started
        if before is not None:
            yield from _finish(bundle, *before)
    finally:
        pool.shutdown(cancel_futures=True)


def _read(bundle: Bundle, describe: bool, file: Path | Refused | InMemory) -> Prediction:
    """The prediction for a file, still without probabilities."""
    if isinstance(file, Refused):
        return Prediction(file.path, error=file.reason)
    path = file.name if isinstance(file, InMemory) else str(file)
    try:
        data = file.content if isinstance(file, InMemory) else read_bytes(path, path)
        if not isinstance(data, bytes):  # not a file, so it has no hash and no split
            return Prediction(path, letterbox(to_rgb(data, path), bundle.size))
        described = None
        if describe:
            entry = shrink(data, path, bundle.size)
            image, described = entry.pixels, entry.descriptor
        else:
            image = load_letterboxed(data, bundle.size, path)
    except ImageError as error:
        return Prediction(path, error=error.reason)
    sha256 = hashlib.sha256(data).hexdigest()
    return Prediction(path, image, None, sha256, bundle.split_of(sha256), descriptor=described)


def _finish(bundle: Bundle, chunk: list[Prediction], logits: jax.Array) -> Iterator[Prediction]:
    logits = np.asarray(logits)
    rows = zip(bundle.probs(logits), bundle.score(logits), strict=True)
    for prediction in chunk:
        if prediction.image is None:
            yield prediction
        else:
            probs, score = next(rows)
            refused = bundle.refuses(score)
            known = {"probs": probs, "score": float(score), "classes": bundle.classes}
            yield replace(prediction, **known, refused=refused)


def open_labelled(source: str, bundle: Bundle, on_bad: OnBad, labels: Path | None = None) -> Split:
    """All images of a set, with labels in the order of the bundle's classes.

    Args:
        source: as `--data` (`read_source`).
        labels: corrections that lie over it.

    Raises:
        DataError: the bundle does not know a class of the set, or as `read_source`.
    """
    rows = () if labels is None else read_labels(labels)
    folder = read_source(source, bundle.size, min_classes=1)
    if labels is not None:
        folder = corrected(folder, labels, rows, size=bundle.size)
    folder = require_clean(folder, on_bad)
    for name in folder.classes:
        if name not in bundle.classes:
            raise DataError(
                f"{folder.root / name}: the model knows no class {name!r}, only "
                f"{', '.join(bundle.classes)}"
            )
    if absent := [name for name in bundle.classes if name not in folder.classes]:
        print(f"warning: {source} has no pictures of class {few(absent)}", file=sys.stderr)
    order = np.array([bundle.classes.index(name) for name in folder.classes], np.int32)
    labels = order[labels_of(folder.records)]
    return Split(pixels(folder, bundle.size), labels, folder.records)
