"""A bundle of a network that was never trained: quick, and right about nothing in particular."""

import jax
import numpy as np

from jaxgear.bundle import Bundle
from jaxgear.data.known import KnownPictures
from jaxgear.models.convnet import Conv, ConvNet, GlobalPool

CLASSES = ("axes", "boots", "hardshell_jackets")


def make_bundle(model=None, variables=None, size=16, classes=CLASSES, known=None, temperature=0.5):
    """`known`: sha256 (hex) -> side of the pictures that it says it was made with."""
    model = model or ConvNet([Conv(4), GlobalPool()], classes=len(classes))
    if variables is None:
        images = np.zeros((1, size, size, 3), np.uint8)
        variables = jax.jit(lambda key: model.init(key, images, train=False))(jax.random.key(0))
    return Bundle(
        model=model,
        variables=variables,
        classes=classes,
        size=size,
        temperature=temperature,
        fingerprint="f" * 64,
        pictures=KnownPictures.of((known or {}).keys(), (known or {}).values()),
        versions={"jax": jax.__version__},
        about={"run": "scratch-20260101-120000", "epoch": 3, "val_accuracy": 0.9},
    )
