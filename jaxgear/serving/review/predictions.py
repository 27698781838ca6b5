"""Predictions of the pictures in view, made in the background, and heat maps on demand."""

import threading
from collections import OrderedDict, deque
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float
from PIL import Image

from jaxgear.bundle import Bundle
from jaxgear.data.images import ImageError, load_letterboxed, load_rgb
from jaxgear.errors import GearError, first_line
from jaxgear.prediction import Predictor
from jaxgear.serving.answer import overlay, to_jpeg
from jaxgear.serving.review.files import PictureFiles

BATCH = 16  # the compiled shape
WAITING = 512  # pictures that may wait; the oldest are dropped
KEPT = 8192  # pictures whose probabilities are kept
MAP = 512  # pixels of a heat map
UNKNOWN, REFUSED = -1, -2  # in `best`: not predicted yet; no gear


class Predictions:
    """Asks a bundle about pictures, the last asked for first. Threads may share it.

    `best` [N] has the index of each picture's predicted class, REFUSED or UNKNOWN; `sure` [N] has
    its probability. `fault` says why there are no predictions, once something failed.
    """

    def __init__(self, bundle: Bundle, files: PictureFiles):
        self.bundle = bundle
        self.best = np.full(len(files.pictures), UNKNOWN, np.int32)
        self.sure = np.zeros(len(files.pictures), np.float32)
        self.fault: str | None = None
        self._files = files
        self._probs: OrderedDict[int, Float[np.ndarray, " K"]] = OrderedDict()
        self._waiting: deque[int] = deque()  # at most `WAITING`
        self._changed = threading.Condition()
        self._stopped = False
        self._thread: threading.Thread | None = None
        self._mapping = threading.Lock()

    def want(self, indices: Sequence[int]) -> None:
        """Asks for the predictions of pictures, before all that wait; does not wait for them."""
        with self._changed:
            wanted = [i for i in indices if i not in self._probs and i not in self._files.errors]
            rest = (i for i in self._waiting if i not in wanted)
            self._waiting = deque([*dict.fromkeys(wanted), *rest][:WAITING])
            if wanted and self._thread is None and not self._stopped:
                self._thread = threading.Thread(target=self._work, name="predictions", daemon=True)
                self._thread.start()
            self._changed.notify_all()

    def probs(self, index: int) -> Float[np.ndarray, " K"] | None:
        """The probabilities of a picture, if they are known."""
        with self._changed:
            return self._probs.get(index)

    def wait(self, index: int, seconds: float) -> Float[np.ndarray, " K"] | None:
        """`want` one picture, and wait for it; None if it takes longer, or cannot be had."""
        self.want([index])
        with self._changed:
            self._changed.wait_for(
                lambda: index in self._probs or index in self._files.errors or self.fault, seconds
            )
            return self._probs.get(index)

    def close(self) -> None:
        """Ends the thread, after the batch that it works on."""
        with self._changed:
            self._stopped = True
            self._changed.notify_all()
        if self._thread is not None:
            self._thread.join()

    def heat_map(self, index: int, label: int) -> bytes | None:
        """A JPEG of a picture with the places that speak for a class; None: no maps.

        Raises:
            ImageError: it cannot be read or decoded.
        """
        data, name = self._files.read(index), self._files.pictures.shown(index)
        with self._mapping:
            image, small = load_rgb(data, name), load_letterboxed(data, self.bundle.size, name)
            pixels = overlay(self.bundle, image, small, label, MAP)
        return None if pixels is None else to_jpeg(Image.fromarray(pixels))

    def _work(self) -> None:
        try:
            predictor = Predictor(self.bundle, BATCH)
            while batch := self._next(predictor.batch_size):
                self._predict(predictor, batch)
        except (GearError, MemoryError, RuntimeError) as error:  # the pictures are shown without
            with self._changed:
                self.fault = first_line(error)
                self._changed.notify_all()

    def _next(self, most: int) -> list[int]:
        """The next pictures, at least one; none once stopped."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._stopped)
            if self._stopped:
                return []
            return [self._waiting.popleft() for _ in range(min(most, len(self._waiting)))]

    def _predict(self, predictor: Predictor, batch: list[int]) -> None:
        images, read = [], []
        for index in batch:
            name = self._files.pictures.shown(index)
            try:
                data = self._files.read(index)
                images.append(load_letterboxed(data, self.bundle.size, name))
                read.append(index)
            except ImageError as error:
                self._files.errors[index] = error.reason
        if read:
            logits = predictor.logits(np.stack(images))
            probs, scores = self.bundle.probs(logits), self.bundle.score(logits)
        with self._changed:
            for row, index in enumerate(read):
                best = int(probs[row].argmax())
                self.best[index] = REFUSED if self.bundle.refuses(scores[row]) else best
                self.sure[index] = probs[row, best]
                self._probs[index] = probs[row].copy()
            while len(self._probs) > KEPT:
                self._probs.popitem(last=False)
            self._changed.notify_all()
