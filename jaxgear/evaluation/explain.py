"""Where in a picture a network saw the class that it names.

Grad-CAM (Selvaraju et al. 2017) at the last convolution of a `ConvNet` or a ResNet.
"""

import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int, PyTree, UInt8

from jaxgear.bundle import Bundle
from jaxgear.compile_cache import keep_compiled
from jaxgear.errors import CheckpointError
from jaxgear.models.convnet import Conv, Residual
from jaxgear.models.resnet import Unit

BATCH = 8  # one compiled shape for any number of pictures


def grad_cam(
    bundle: Bundle,
    images: UInt8[np.ndarray, "N S S 3"],
    classes: Int[np.ndarray, " N"] | None = None,
) -> Float[np.ndarray, "N S S"]:
    """How much each place speaks for a class, 0 to 1 in each picture.

    Args:
        classes: index of the class of each picture; None: the one that is predicted.

    Raises:
        CheckpointError: a network without convolutions.
    """
    keep_compiled()
    chosen = np.full(len(images), -1) if classes is None else classes
    target = _last_convolution(bundle.model, bundle.variables, images.shape[1])
    parts = [np.zeros((0, bundle.size, bundle.size), np.float32)]
    for first in range(0, len(images), BATCH):
        rows = np.arange(first, first + BATCH) % len(images)  # the last batch is filled up
        parts.append(
            np.asarray(_maps(bundle.model, target, bundle.variables, images[rows], chosen[rows]))
        )
    return np.concatenate(parts)[: len(images)]


def overlay(
    image: UInt8[np.ndarray, "S S 3"], heat: Float[np.ndarray, "S S"]
) -> UInt8[np.ndarray, "S S 3"]:
    """The picture with the map on it: the more a place speaks for the class, the redder it is."""
    red = np.array([210, 20, 20], np.float32)
    share = 0.6 * heat[..., None]
    return np.round(image * (1 - share) + red * share).astype(np.uint8)


def _watch(model: nn.Module, variables: PyTree, images: jax.Array, see: Any) -> jax.Array:
    """Logits, with `see(path, y) -> y` called on what every convolutional layer puts out."""

    def intercept(run, args, kwargs, context):
        y = run(*args, **kwargs)
        layer = isinstance(context.module, Conv | Residual | Unit)
        return see(context.module.path, y) if layer and context.method_name == "__call__" else y

    with nn.intercept_methods(intercept):
        return model.apply(variables, images, train=False)


def _last_convolution(model: nn.Module, variables: PyTree, size: int) -> tuple[str, ...]:
    """Path of the layer that finishes last; around others, it finishes after them."""
    finished = []

    def see(path, y):
        finished.append(path)
        return y

    images = jax.ShapeDtypeStruct((1, size, size, 3), np.uint8)
    jax.eval_shape(lambda v, x: _watch(model, v, x, see), variables, images)
    if not finished:
        raise CheckpointError("the network has no convolution, and so no map of places to show")
    return finished[-1]


@functools.partial(jax.jit, static_argnums=(0, 1))
def _maps(model, target, variables, images, classes):
    """[B, S, S] in [0, 1]; a class of -1 is the predicted one."""
    kept = {}

    def score(delta):
        def see(path, y):
            if path != target:
                return y
            kept["map"] = y
            return y if delta is None else y + delta

        logits = _watch(model, variables, images, see)
        chosen = jnp.where(classes < 0, logits.argmax(axis=1), classes)
        return jnp.take_along_axis(logits, chosen[:, None], axis=1).sum(), kept["map"]

    shape = jax.eval_shape(lambda: score(None)[1])
    grads, maps = jax.grad(score, has_aux=True)(jnp.zeros(shape.shape, shape.dtype))
    weights = grads.mean(axis=(1, 2), keepdims=True)
    heat = nn.relu((weights * maps).sum(axis=-1).astype(jnp.float32))
    heat = jax.image.resize(heat, (len(images), *images.shape[1:3]), "bilinear")
    return heat / jnp.maximum(heat.max(axis=(1, 2), keepdims=True), 1e-12)
