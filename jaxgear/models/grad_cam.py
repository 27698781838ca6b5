"""Exports Grad-CAM of a network as a program for its bundle.

Selvaraju et al. 2017, "Grad-CAM: Visual Explanations from Deep Networks via Gradient-based
Localization", at the last convolution or the block around it.
"""

import functools
from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int, PyTree, UInt8

from jaxgear.errors import UsageError
from jaxgear.models.finetune import FineTuned
from jaxgear.program import export, flat, structured
from jaxgear.program.apply import forward

Place = tuple[tuple[str, ...], int]  # path of a layer, and number of its call


def map_program(model: nn.Module, variables: PyTree, size: int) -> bytes | None:
    """The Grad-CAM program of a network, serialized; None without a convolution that gives maps.

    (weights, u8 [B, S, S, 3], class i32 [B]; -1: the predicted class) -> float32 [B, S, S].
    """
    if isinstance(model, FineTuned):  # it sees each image only as it is
        model = model.clone(mirror=False)
    shapes = jax.eval_shape(lambda: variables)
    if (place := _last_convolution(model, shapes, size)) is None:
        return None
    restore = structured(shapes)

    def run(weights, images, classes):
        return _maps(forward(model), place, restore(weights), images, classes)

    row = jax.ShapeDtypeStruct((), jnp.int32)
    try:
        exported = export(run, flat(shapes), size, type(model).__name__, row)
    except UsageError:  # for example no gradient; occlusion maps need none
        return None
    return bytes(exported.serialize())


def _maps(
    apply: Callable[..., jax.Array],
    place: Place,
    variables: PyTree,
    images: UInt8[jax.Array, "B S S 3"],
    classes: Int[jax.Array, " B"],
) -> Float[jax.Array, "B S S"]:
    """Grad-CAM of a batch; class -1 stands for the predicted class."""

    def score(change):
        """The sum of the chosen logits with `change` added to the map at `place`, and the map."""
        kept = {}

        def see(layer, y):
            if layer != place:
                return y
            kept["map"] = y
            return y + change

        logits = _watch(functools.partial(apply, variables, images, train=False), see)
        chosen = jnp.where(classes < 0, logits.argmax(axis=1).astype(jnp.int32), classes)
        return jnp.take_along_axis(logits, chosen[:, None], axis=1).sum(), kept["map"]

    like = jax.eval_shape(lambda: score(0.0)[1])
    gradient, maps = jax.grad(score, has_aux=True)(jnp.zeros(like.shape, like.dtype))
    weights = gradient.astype(jnp.float32).mean(axis=(1, 2), keepdims=True)  # [B, 1, 1, C]
    heat = nn.relu((weights * maps).sum(axis=-1))  # [B, h, w]
    heat = jax.image.resize(heat, images.shape[:3], "bilinear")
    return heat / jnp.maximum(heat.max(axis=(1, 2), keepdims=True), 1e-12)


def _last_convolution(model: nn.Module, variables: PyTree, size: int) -> Place | None:
    """The last call of a convolution, or of a block around one, that gives a map over 1 x 1."""
    seen: list[Place] = []

    def see(place, y):
        seen.append(place)
        return y

    images = jax.ShapeDtypeStruct((1, size, size, 3), np.uint8)
    apply = functools.partial(forward(model), train=False)
    jax.eval_shape(lambda v, x: _watch(functools.partial(apply, v, x), see), variables, images)
    return seen[-1] if seen else None


def _watch(run: Callable[[], PyTree], see: Callable[[Place, jax.Array], jax.Array]) -> PyTree:
    """`run()` with each map of a convolution, or of a block around one, replaced by
    `see(place, map)`, in the order in which the layers finish.
    """
    calls: dict[tuple[str, ...], int] = {}
    convolved: set[tuple[str, ...]] = set()  # paths of convolutions so far

    def intercept(call, args, kwargs, context):
        y = call(*args, **kwargs)
        if context.method_name != "__call__":
            return y
        path = context.module.path
        number = calls[path] = calls.get(path, 0) + 1
        if isinstance(context.module, nn.Conv | nn.ConvTranspose | nn.ConvLocal):
            convolved.add(path)
        around = any(inner[: len(path)] == path for inner in convolved)
        is_map = isinstance(y, jax.Array) and y.ndim == 4 and y.shape[1] * y.shape[2] > 1
        return see((path, number), y) if around and is_map else y

    with nn.intercept_methods(intercept):
        return run()
