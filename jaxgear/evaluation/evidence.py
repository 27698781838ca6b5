"""Evidence of gear, as a part of the logits.

A linear discriminant between what a network's last layer takes of pictures of gear and of
backgrounds alone (Fisher 1936; each value scaled, the covariance shrunk towards the identity) is
added to all logits of a network alike. Its probabilities stay as they are, since a softmax ignores
what all logits share; and the largest logit, `Bundle.score`, says by its share of all how much a
picture looks like gear at all, and by the rest how much like gear of one class.
"""

import functools
from collections.abc import Callable

import flax.linen as nn
import jax
import numpy as np
from flax import traverse_util
from jaxtyping import Float, PyTree

from jaxgear.data.dataset import Side
from jaxgear.models.finetune import unmirrored

BATCH = 64
# In units of the scaled values' variance. Between 0.5 and 3 nothing changes (results/README.md).
SHRINK = 1.0

Inputs = Float[np.ndarray, "N D"]  # of the last layer
Path = tuple[str, ...]


def last_layer(model: nn.Module, variables: PyTree, size: int) -> Path | None:
    """The dense layer that puts out the logits; None where something else does."""
    model = unmirrored(model)
    pictures = jax.ShapeDtypeStruct((1, size, size, 3), np.uint8)
    seen: list[Path | None] = []

    def run(images):
        logits, layers = _watched(model, variables, images)
        path, _, y = layers[-1] if layers else (None, None, None)
        seen.append(path if y is logits else None)

    jax.eval_shape(run, pictures)
    return seen[0]


def inputs_of(model: nn.Module, variables: PyTree) -> Callable[[Side], Inputs]:
    """Pictures -> what the last dense layer takes of them."""
    model = unmirrored(model)
    step = jax.jit(lambda images: _watched(model, variables, images)[1][-1][1])

    def inputs(side: Side) -> Inputs:
        rows = np.resize(np.arange(len(side.labels)), -(-len(side.labels) // BATCH) * BATCH)
        parts = [np.asarray(step(side.images[part])) for part in rows.reshape(-1, BATCH)]
        return np.concatenate(parts)[: len(side.labels)]

    return inputs


def _watched(model, variables, images):
    """The logits, and the path, input and output of each dense layer, in order."""
    layers = []

    def watch(call, args, kwargs, context):
        y = call(*args, **kwargs)
        if isinstance(context.module, nn.Dense) and context.method_name == "__call__":
            layers.append((context.module.path, args[0], y))
        return y

    with nn.intercept_methods(watch):
        return model.apply(variables, images, train=False), layers


def logits_of(variables: PyTree, layer: Path, inputs: Inputs) -> Float[np.ndarray, "N K"]:
    """What the last layer makes of its inputs."""
    dense = functools.reduce(lambda tree, name: tree[name], layer, variables["params"])
    return inputs @ np.asarray(dense["kernel"]) + np.asarray(dense["bias"])


def with_evidence(
    variables: PyTree,
    layer: Path,
    gear: Float[np.ndarray, "G D"],
    other: Float[np.ndarray, "O D"],
    held_out: Float[np.ndarray, "V D"],
    weight: float = 1.0,
) -> PyTree:
    """`variables` with the evidence added to the last layer, and the mean of its logits taken out.

    The discriminant is that of `gear` and `other`. On `held_out`, pictures of gear that nothing was
    trained on, it varies `weight` times as much as the largest logit.
    """
    share = np.repeat([0.5 / len(gear), 0.5 / len(other)], [len(gear), len(other)])
    known = np.concatenate([gear, other]).astype(np.float64)
    mean = share @ known
    scale = np.sqrt(share @ (known - mean) ** 2) + 1e-6
    known = (known - mean) / scale
    covariance = known.T @ (known * share[:, None])
    apart = known[: len(gear)].mean(axis=0) - known[len(gear) :].mean(axis=0)
    towards = np.linalg.solve(covariance + SHRINK * np.eye(len(apart)), apart) / scale

    flat = traverse_util.flatten_dict(dict(variables["params"]))
    kernel, bias = (np.asarray(flat[*layer, name], np.float64) for name in ("kernel", "bias"))
    kernel, bias = kernel - kernel.mean(axis=1, keepdims=True), bias - bias.mean()
    largest = (held_out @ kernel + bias).max(axis=1)
    evidence = (held_out - mean) @ towards
    towards *= weight * largest.std() / max(evidence.std(), 1e-12)
    flat[*layer, "kernel"] = (kernel + towards[:, None]).astype(np.float32)
    flat[*layer, "bias"] = (bias - mean @ towards).astype(np.float32)
    return {**variables, "params": traverse_util.unflatten_dict(flat)}
