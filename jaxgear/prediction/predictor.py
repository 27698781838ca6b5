"""A bundle and pictures -> logits and probabilities: the one way, for evaluation and prediction."""

import functools
import hashlib
import itertools
import os
import sys
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jaxtyping import Float, UInt8

from jaxgear.bundle import Bundle
from jaxgear.data.dataset import Split, few
from jaxgear.data.folder import OnBad, Refused, pixels, read_folder, require_clean
from jaxgear.data.images import ImageError, letterbox, load_letterboxed, read_bytes
from jaxgear.data.sources import InMemory, find_pictures, to_rgb
from jaxgear.errors import CheckpointError, DataError
from jaxgear.machine.compile_cache import keep_compiled
from jaxgear.program import running

NONE = "none"  # what a refused picture shows


@dataclass(frozen=True, eq=False)
class Prediction:
    """What a bundle makes of one file: either `image`, `probs` and `sha256`, or `error`."""

    path: str
    image: UInt8[np.ndarray, "S S 3"] | None = None  # as the network saw it
    probs: Float[np.ndarray, " K"] | None = None  # calibrated, in the order of the bundle's classes
    sha256: str | None = None  # of the file, hex
    split: str | None = None  # of the data set that the file was on: train, val, test, left_out
    error: str | None = None  # why it could not be read
    score: float | None = None  # how much it looks like gear (`Bundle.score`)
    refused: bool = False  # its score is too low: none of the classes

    def name(self, classes: Sequence[str]) -> str:
        """What it shows: the likeliest class, or `NONE`. Of a picture that was read."""
        return NONE if self.refused else classes[int(self.probs.argmax())]


class Predictor:
    """A bundle's network, compiled once for batches of `batch_size` pictures."""

    def __init__(self, bundle: Bundle, batch_size: int = 64):
        """Raises CheckpointError where the bundle's program cannot run."""
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
        """Logits of up to `batch_size` pictures, [batch_size, K]; does not wait for them."""
        missing = self.batch_size - len(images)
        padded = np.pad(images, ((0, missing), (0, 0), (0, 0), (0, 0))) if missing else images
        return self._step(self._weights, padded)

    def logits(self, images: UInt8[np.ndarray, "N S S 3"]) -> Float[np.ndarray, "N K"]:
        """Logits of any number of pictures."""
        parts = [
            np.asarray(self.start(images[first : first + self.batch_size]))
            for first in range(0, len(images), self.batch_size)
        ]
        none = np.zeros((0, len(self.bundle.classes)), np.float32)
        logits = np.concatenate([none, *parts])[: len(images)]
        if not np.isfinite(logits).all():
            raise CheckpointError("the model's output is not finite: its weights are of no use")
        return logits

    def probs(self, images: UInt8[np.ndarray, "N S S 3"]) -> Float[np.ndarray, "N K"]:
        """Calibrated probabilities of any number of pictures."""
        return self.bundle.probs(self.logits(images))


def predict(bundle: Bundle, sources: Any, batch_size: int = 64) -> Iterator[Prediction]:
    """A prediction a picture, in order, as they come.

    Threads decode the next pictures while the network works on a batch; at any time there are
    about three batches of pictures in memory.

    Args:
        sources: a file, folder or pattern, or a picture (PIL image, u8 [H, W, 3] array, bytes of a
            file, binary file), or several of these. Pictures are called `<picture 1>`, by their
            place.

    Raises:
        DataError: a folder without pictures, or a pattern that matches nothing.
        TypeError: a source that is none of these.
    """
    return predict_files(bundle, find_pictures(sources), batch_size)


def predict_files(
    bundle: Bundle, files: list[Path | Refused | InMemory], batch_size: int = 64
) -> Iterator[Prediction]:
    """`predict` for files that were found before."""
    # One picture is not padded to 64, and sizes are few, so that compiled programs are found again.
    batch_size = bundle.program.batch or min(batch_size, 1 << (len(files) - 1).bit_length())
    pool = ThreadPoolExecutor(os.cpu_count())  # Pillow releases the GIL while it decodes
    try:
        predictor = pool.submit(Predictor, bundle, batch_size)  # meanwhile others decode
        read = _ahead(pool, functools.partial(_read, bundle), files, batch_size)
        before: tuple[list[Prediction], jax.Array] | None = None
        while chunk := list(itertools.islice(read, batch_size)):
            images = [one.image for one in chunk if one.image is not None]
            none = np.zeros((0, bundle.size, bundle.size, 3), np.uint8)
            started = predictor.result().start(np.stack(images) if images else none)
            if before is not None:  # the device works on this batch while we hand out the last
                yield from _finish(bundle, *before)
            before = chunk, started
        if before is not None:
            yield from _finish(bundle, *before)
    finally:
        pool.shutdown(cancel_futures=True)


def _ahead(pool, read, files, most):
    """`map(read, files)` with up to `most` results waiting."""
    waiting = deque()
    for file in files:
        waiting.append(pool.submit(read, file))
        if len(waiting) > most:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()


def _read(bundle: Bundle, file: Path | Refused | InMemory) -> Prediction:
    """Everything about a picture but its probabilities."""
    if isinstance(file, Refused):
        return Prediction(file.path, error=file.reason)
    path = file.name if isinstance(file, InMemory) else str(file)
    try:
        data = file.content if isinstance(file, InMemory) else read_bytes(path, path)
        if not isinstance(data, bytes):  # no file, so none of the model's data
            return Prediction(path, letterbox(to_rgb(data, path), bundle.size))
        image = load_letterboxed(data, bundle.size, path)
    except ImageError as error:
        return Prediction(path, error=error.reason)
    sha256 = hashlib.sha256(data).hexdigest()
    return Prediction(path, image, None, sha256, bundle.split_of(sha256))


def _finish(bundle: Bundle, chunk: list[Prediction], logits: jax.Array) -> Iterator[Prediction]:
    logits = np.asarray(logits)
    rows = zip(bundle.probs(logits), bundle.score(logits), strict=True)
    for one in chunk:
        if one.image is None:
            yield one
        else:
            probs, score = next(rows)
            yield replace(one, probs=probs, score=float(score), refused=bundle.refuses(score))


def open_folder(root: Path, bundle: Bundle, on_bad: OnBad) -> Split:
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
    if absent := [name for name in bundle.classes if name not in folder.classes]:
        print(f"warning: {root} has no pictures of class {few(absent)}", file=sys.stderr)
    order = np.array([bundle.classes.index(name) for name in folder.classes], np.int32)
    labels = order[[record.label for record in folder.records]]
    return Split(pixels(folder, bundle.size), labels, folder.records)
