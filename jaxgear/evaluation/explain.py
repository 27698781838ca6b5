"""Heat maps: where in an image a network sees a class.

Bundles of convolutional networks hold a program for Grad-CAM (models/grad_cam.py). Other networks
get occlusion (Zeiler and Fergus 2014, "Visualizing and Understanding Convolutional Networks"):
cover a part of the image, and measure how far the logit falls.
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int, UInt8
from PIL import Image

from jaxgear.bundle import Bundle
from jaxgear.data.batches import in_batches
from jaxgear.errors import CheckpointError
from jaxgear.machine.compile_cache import keep_compiled
from jaxgear.prediction import Predictor
from jaxgear.program import deserialize, running

BATCH = 8  # one compiled shape for any number of images
CELLS = 8  # rows and columns of places that occlusion covers, with patches of 2 x 2 cells
# Heat -> colour of the tint: blue, green, yellow, red.
_DEGREES = (0.0, 0.4, 0.7, 1.0)
_TINTS = np.array([(40, 80, 200), (30, 180, 160), (250, 210, 40), (215, 25, 28)])
_OPACITY = 0.6


def heat_maps(
    bundle: Bundle,
    images: UInt8[np.ndarray, "N S S 3"],
    classes: Int[np.ndarray, " N"] | None = None,
    batch_size: int = BATCH,
) -> Float[np.ndarray, "N S S"]:
    """How much each place speaks for a class: 0 (not at all, or against it) to 1 (most).

    Grad-CAM weighs each channel of the last convolution (or the block around it) by the mean
    gradient of the class's logit. Negative values are dropped, and the largest value of each image
    becomes 1. Bundles without a program for it use occlusion.

    Args:
        classes: the class to explain, for each image; None: the predicted class.
        batch_size: the compiled shape; 1 to explain one image at a time.

    Raises:
        CheckpointError: the bundle's program of maps is invalid, or cannot run.
    """
    keep_compiled()
    chosen = np.full(len(images), -1, np.int32) if classes is None else np.int32(classes)
    if not len(images):
        return np.zeros((0, bundle.size, bundle.size), np.float32)
    if bundle.maps is None:
        return _occlusion(bundle, images, chosen)
    maps, batch = _compiled(bundle.maps)
    weights = jax.device_put(bundle.weights)
    with running("the bundle's program of maps"):
        return in_batches(lambda *rows: maps(weights, *rows), (images, chosen), batch or batch_size)


def method(bundle: Bundle) -> str:
    """The method of `heat_maps` for a bundle, in words."""
    return "covering places in turn" if bundle.maps is None else "Grad-CAM"


def overlay(
    image: UInt8[np.ndarray, "H W 3"], heat: Float[np.ndarray, "S S"]
) -> UInt8[np.ndarray, "H W 3"]:
    """The image with the map, resized to it, over it: clear at 0, green, yellow, red at 1."""
    size = image.shape[1], image.shape[0]
    heat = np.asarray(Image.fromarray(heat).resize(size, Image.Resampling.BILINEAR))
    tint = np.stack([np.interp(heat, _DEGREES, _TINTS[:, c]) for c in range(3)], axis=-1)
    opacity = _OPACITY * np.minimum(1.5 * heat, 1.0)[..., None]
    return np.round(image * (1 - opacity) + tint * opacity).astype(np.uint8)


@functools.lru_cache(maxsize=8)
def _compiled(program: bytes) -> tuple[Callable[..., jax.Array], int | None]:
    """The function of a program of maps, and its batch (None: any)."""
    exported = deserialize(program)
    if len(exported.out_avals) != 1 or len(exported.out_avals[0].shape) != 3:
        raise CheckpointError("the bundle's program of maps gives no maps")

    def maps(weights, images, classes):
        return exported.call(weights, images, classes)

    batch = exported.in_avals[-1].shape[0]
    return jax.jit(maps), batch if isinstance(batch, int) else None


def _occlusion(
    bundle: Bundle, images: UInt8[np.ndarray, "N S S 3"], classes: Int[np.ndarray, " N"]
) -> Float[np.ndarray, "N S S"]:
    """How far a class's logit falls when the mean colour covers a square of the image."""
    predictor, size = Predictor(bundle), bundle.size
    edges = np.linspace(0, size, CELLS + 1).round().astype(int)
    maps = []
    for image, label in zip(images, classes, strict=True):
        covered = np.repeat(image[None], CELLS * CELLS, axis=0)
        for cell in range(CELLS * CELLS):
            row, column = divmod(cell, CELLS)
            top, left = edges[max(0, row - 1)], edges[max(0, column - 1)]
            patch = (cell, slice(top, edges[row + 1]), slice(left, edges[column + 1]))
            covered[patch] = image.mean(axis=(0, 1))
        logits = predictor.logits(np.concatenate([image[None], covered]))
        label = logits[0].argmax() if label < 0 else label
        fall = np.maximum(logits[0, label] - logits[1:, label], 0).reshape(1, CELLS, CELLS)
        heat = jax.image.resize(fall, (1, size, size), "bilinear")[0]
        maps.append(np.asarray(heat / jnp.maximum(heat.max(), 1e-12), np.float32))
    return np.stack(maps)
