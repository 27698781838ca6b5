"""Where in a picture a network saw the class that it names.

Grad-CAM (Selvaraju et al. 2017, "Grad-CAM: Visual Explanations from Deep Networks via
Gradient-based Localization") at the last convolution of a `ConvNet` or a ResNet.
"""

import functools
import json
from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int, PyTree, UInt8

from jaxgear.bundle import Bundle
from jaxgear.compile_cache import keep_compiled
from jaxgear.errors import CheckpointError
from jaxgear.models.convnet import Conv, Residual
from jaxgear.models.finetune import unmirrored
from jaxgear.models.resnet import Unit
from jaxgear.models.spec import from_spec, to_spec

BATCH = 8  # one compiled shape for any number of pictures
# What a place that speaks for the class to this degree is tinted with: blue, green, yellow, red.
_DEGREES = (0.0, 0.4, 0.7, 1.0)
_TINTS = np.array([(40, 80, 200), (30, 180, 160), (250, 210, 40), (215, 25, 28)])
_OPACITY = 0.6

Path = tuple[str, ...]


def grad_cam(
    bundle: Bundle,
    images: UInt8[np.ndarray, "N S S 3"],
    classes: Int[np.ndarray, " N"] | None = None,
    batch_size: int = BATCH,
) -> Float[np.ndarray, "N S S"]:
    """How much each place speaks for a class: 0 (not at all, or against it) to 1 (most).

    The channels of the map that the last convolution (or the unit around it) puts out, each
    weighted by the mean gradient of the class's logit; what is negative is dropped, and the largest
    value of each picture becomes 1.

    Args:
        classes: whose logit is explained, for each picture; None: the class that is predicted.
        batch_size: the compiled shape; 1 for those who explain one picture at a time.

    Raises:
        CheckpointError: a network without convolutions.
    """
    keep_compiled()
    maps = _compiled(json.dumps(to_spec(bundle.model)), bundle.size)
    variables = jax.device_put(bundle.variables)
    chosen = np.full(len(images), -1) if classes is None else classes
    parts = [np.zeros((0, bundle.size, bundle.size), np.float32)]
    for first in range(0, len(images), batch_size):
        rows = np.arange(first, first + batch_size) % len(images)  # the last batch is filled up
        parts.append(np.asarray(maps(variables, images[rows], chosen[rows])))
    return np.concatenate(parts)[: len(images)]


def overlay(
    image: UInt8[np.ndarray, "S S 3"], heat: Float[np.ndarray, "S S"]
) -> UInt8[np.ndarray, "S S 3"]:
    """The picture, tinted from clear over green and yellow to red as the map goes from 0 to 1."""
    tint = np.stack([np.interp(heat, _DEGREES, _TINTS[:, c]) for c in range(3)], axis=-1)
    opacity = _OPACITY * np.minimum(1.5 * heat, 1.0)[..., None]
    return np.round(image * (1 - opacity) + tint * opacity).astype(np.uint8)


@functools.lru_cache(maxsize=8)
def _compiled(spec: str, size: int) -> Callable[..., jax.Array]:
    """The compiled function of a network, which is given as JSON because modules may not hash."""
    model = unmirrored(from_spec(json.loads(spec)))
    return jax.jit(functools.partial(_maps, model, _last_convolution(model, size)))


def _maps(
    model: nn.Module,
    target: Path,
    variables: PyTree,
    images: UInt8[jax.Array, "B S S 3"],
    classes: Int[jax.Array, " B"],
) -> Float[jax.Array, "B S S"]:
    """The maps of a batch; a class of -1 is the predicted one."""

    def score(change):
        """The sum of the logits, where the map of `target` is changed by so much; and the map."""
        found = {}

        def see(path, y):
            if path != target:
                return y
            found["map"] = y
            return y + change

        logits = _watch(functools.partial(model.apply, variables, images, train=False), see)
        chosen = jnp.where(classes < 0, logits.argmax(axis=1), classes)
        return jnp.take_along_axis(logits, chosen[:, None], axis=1).sum(), found["map"]

    like = jax.eval_shape(lambda: score(0.0)[1])
    gradient, maps = jax.grad(score, has_aux=True)(jnp.zeros(like.shape, like.dtype))
    weights = gradient.astype(jnp.float32).mean(axis=(1, 2), keepdims=True)  # [B, 1, 1, C]
    heat = nn.relu((weights * maps).sum(axis=-1))  # [B, h, w]
    heat = jax.image.resize(heat, (len(images), *images.shape[1:3]), "bilinear")
    return heat / jnp.maximum(heat.max(axis=(1, 2), keepdims=True), 1e-12)


def _last_convolution(model: nn.Module, size: int) -> Path:
    """Path of the convolutional layer that finishes last; one around others finishes after them."""
    finished = []

    def see(path, y):
        finished.append(path)
        return y

    images = jax.ShapeDtypeStruct((1, size, size, 3), np.uint8)
    init = functools.partial(model.init, jax.random.key(0), train=False)
    jax.eval_shape(lambda x: _watch(functools.partial(init, x), see), images)
    if not finished:
        raise CheckpointError("a network without convolutions has no map of places to show")
    return finished[-1]


def _watch(run: Callable[[], PyTree], see: Callable[[Path, jax.Array], jax.Array]) -> PyTree:
    """`run()`, with what each convolutional layer puts out replaced by `see(path, output)`."""

    def intercept(call, args, kwargs, context):
        y = call(*args, **kwargs)
        layer = context.module
        if context.method_name != "__call__" or not isinstance(layer, Conv | Residual | Unit):
            return y
        return see(layer.path, y)

    with nn.intercept_methods(intercept):
        return run()
