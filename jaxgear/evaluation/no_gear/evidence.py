"""Evidence of gear, as a part of the logits.

The evidence is a linear discriminant (Fisher 1936) between the features of gear and of backgrounds
without gear; features are scaled, and their covariance is shrunk towards the identity. The evidence
is added to all logits of a network equally. A softmax ignores what all logits share, so
probabilities do not change. The largest logit, `Bundle.score`, then tells how much an image looks
like gear at all.
"""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jaxtyping import Float

from jaxgear.data.augment import Bank
from jaxgear.data.batches import in_batches
from jaxgear.data.composites import scene_split, with_pasted
from jaxgear.data.dataset import Dataset, Split, subsample
from jaxgear.program import Program, Weights

BATCH = 64
SHOWN = 256  # training images, and as many backgrounds without gear, to fit the evidence
# In units of the scaled values' variance. Between 0.5 and 3 nothing changes (results/README.md,
# "The weight of the evidence").
SHRINK = 1.0

Features = Float[np.ndarray, "N D"]  # inputs of the last dense layer


def features_of(program: Program, weights: Weights) -> Callable[[Any], Features]:
    """A function from images, u8 [N, S, S, 3], to the inputs of the last dense layer."""
    step = jax.jit(program.features)
    weights, size = jax.device_put(weights), program.batch or BATCH
    return lambda images: in_batches(lambda x: step(weights, x), (images,), size)


def logits_of(weights: Weights, head: str, features: Features) -> Float[np.ndarray, "N K"]:
    """Logits of features."""
    return features @ np.asarray(weights[f"{head}/kernel"]) + np.asarray(weights[f"{head}/bias"])


def of_splits(program: Program, weights: Weights) -> Callable[[Split], Features]:
    """`features_of` the images of a split."""
    of_images = features_of(program, weights)
    return lambda split: of_images(split.images)


def fitted(
    weights: Weights,
    head: str,
    dataset: Dataset,
    bank: Bank,
    features_of: Callable[[Split], Features],
    share: float = 1.0,
) -> Weights:
    """`with_evidence` of the training images, plain and pasted, against the backgrounds of `bank`.

    Args:
        features_of: computes the inputs of the last layer.
    """
    gear = with_pasted(subsample(dataset.split("train"), SHOWN), dataset.folder, bank)
    scenes = scene_split(bank, dataset.size, SHOWN)
    val = with_pasted(dataset.split("val"), dataset.folder, bank)
    return with_evidence(weights, head, *map(features_of, (gear, scenes, val)), share)


def with_evidence(
    weights: Weights,
    head: str,
    gear: Float[np.ndarray, "G D"],
    other: Float[np.ndarray, "O D"],
    held_out: Float[np.ndarray, "V D"],
    share: float = 1.0,
) -> Weights:
    """`weights` with the evidence added to the last layer, and the mean logit removed from it.

    Args:
        gear, other: features between which the evidence discriminates.
        held_out: features of gear that was not trained on. The evidence is scaled so that its
            standard deviation here is `share` times that of the largest logit.
    """
    weight = np.repeat([0.5 / len(gear), 0.5 / len(other)], [len(gear), len(other)])
    known = np.concatenate([gear, other]).astype(np.float64)
    mean = weight @ known
    scale = np.sqrt(weight @ (known - mean) ** 2) + 1e-6
    known = (known - mean) / scale
    covariance = known.T @ (known * weight[:, None])
    difference = known[: len(gear)].mean(axis=0) - known[len(gear) :].mean(axis=0)
    shrunk = covariance + SHRINK * np.eye(len(covariance))
    direction = np.linalg.solve(shrunk, difference) / scale

    kernel, bias = (np.asarray(weights[f"{head}/{name}"]) for name in ("kernel", "bias"))
    dtype = kernel.dtype
    kernel, bias = kernel.astype(np.float64), bias.astype(np.float64)
    kernel, bias = kernel - kernel.mean(axis=1, keepdims=True), bias - bias.mean()
    largest = (held_out @ kernel + bias).max(axis=1)
    evidence = (held_out - mean) @ direction
    direction *= share * largest.std() / max(evidence.std(), 1e-12)
    return weights | {
        f"{head}/kernel": (kernel + direction[:, None]).astype(dtype),
        f"{head}/bias": (bias - mean @ direction).astype(dtype),
    }
