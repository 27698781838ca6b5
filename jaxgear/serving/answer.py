"""Bytes of one image in, the answer that the page shows out."""

import base64
import hashlib
import io
from typing import Any

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from jaxgear.bundle import Bundle
from jaxgear.data.images import letterbox, load_letterboxed, load_rgb
from jaxgear.errors import CheckpointError
from jaxgear.evaluation import explain
from jaxgear.prediction import NONE, Predictor

SHOWN = 320  # pixels of the images that are sent back


class Classifier:
    """A bundle, compiled for one image at a time. Threads may share it."""

    def __init__(self, bundle: Bundle):
        self.bundle = bundle
        self.predictor = Predictor(bundle, 1)
        # Compile now, so that the first answer is as quick as the next.
        blank = np.zeros((1, 1, 3), np.uint8)
        overlay(bundle, blank, letterbox(blank, bundle.size), 0)

    def answer(self, data: bytes) -> dict[str, Any]:
        """The prediction of an image, as JSON.

        Keys: `class` (`none` if refused as no gear), `refused`, `score`, `accept_from` (the
        threshold; null: none), `classes` (with probabilities, the likeliest first), `side` (the
        split, if it is in the model's data), `picture` and `overlay` (data URLs of the image,
        without and with the heat map of the likeliest class; `overlay` may be null).

        Raises:
            ImageError: not an image, damaged, or with too many pixels.
        """
        image = load_rgb(data)
        small = load_letterboxed(data, self.bundle.size, "picture")  # as in training
        logits = self.predictor.logits(small[None])
        (probs,), (score,) = self.bundle.probs(logits), self.bundle.score(logits)
        order = np.argsort(-probs, kind="stable")
        heat = overlay(self.bundle, image, small, int(order[0]))
        refused = self.bundle.refuses(score)
        return {
            "class": NONE if refused else self.bundle.classes[order[0]],
            "refused": refused,
            "score": round(float(score), 6),
            "accept_from": self.bundle.accept_from,
            "classes": [
                {"name": self.bundle.classes[i], "probability": round(float(probs[i]), 6)}
                for i in order
            ],
            "side": self.bundle.split_of(hashlib.sha256(data).hexdigest()),
            "picture": _data_url(letterbox(image, SHOWN)),
            "overlay": None if heat is None else _data_url(heat),
        }


def overlay(
    bundle: Bundle,
    image: UInt8[np.ndarray, "H W 3"],
    small: UInt8[np.ndarray, "S S 3"],
    label: int,
    shown: int = SHOWN,
) -> UInt8[np.ndarray, "T T 3"] | None:
    """The image in a square of `shown` pixels with the heat map of a class over it.

    `small` is the input of the network. None: the bundle has no usable program for maps.
    """
    try:
        (heat,) = explain.heat_maps(bundle, small[None], np.array([label], np.int32), 1)
    except CheckpointError:
        return None
    return explain.overlay(letterbox(image, shown), heat)


def to_jpeg(image: Image.Image) -> bytes:
    """The file of an image in mode RGB, as the pages show it."""
    file = io.BytesIO()
    image.save(file, "JPEG", quality=88)
    return file.getvalue()


def _data_url(pixels: UInt8[np.ndarray, "H W 3"]) -> str:
    data = to_jpeg(Image.fromarray(pixels))
    return "data:image/jpeg;base64," + base64.b64encode(data).decode()
