"""Evidence of gear, as a part of the logits.

A linear discriminant between what a network's last layer takes of images of gear and of backgrounds
alone (Fisher 1936; each value scaled, the covariance shrunk towards the identity) is added to all
logits of a network alike. Its probabilities stay as they are, since a softmax ignores what all
logits share; and the largest logit, `Bundle.score`, says by its share of all how much an image
looks like gear at all, and by the rest how much like gear of one class.
"""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jaxtyping import Float

from jaxgear.data.batches import in_batches
from jaxgear.program import Program, Weights

BATCH = 64
# In units of the scaled values' variance. Between 0.5 and 3 nothing changes (results/README.md,
# "The weight of the evidence").
SHRINK = 1.0

Features = Float[np.ndarray, "N D"]  # what the last layer takes


def features_of(program: Program, weights: Weights) -> Callable[[Any], Features]:
    """Images, u8 [N, S, S, 3] -> what the last dense layer takes of them."""
    step = jax.jit(program.features)
    weights, size = jax.device_put(weights), program.batch or BATCH
    return lambda images: in_batches(lambda x: step(weights, x), (images,), size)


def logits_of(weights: Weights, head: str, features: Features) -> Float[np.ndarray, "N K"]:
    """What the last layer makes of its features."""
    return features @ np.asarray(weights[f"{head}/kernel"]) + np.asarray(weights[f"{head}/bias"])


def with_evidence(
    weights: Weights,
    head: str,
    gear: Float[np.ndarray, "G D"],
    other: Float[np.ndarray, "O D"],
    held_out: Float[np.ndarray, "V D"],
    share: float = 1.0,
) -> Weights:
    """`weights` with the evidence added to the last layer, and the mean of its logits taken out.

    The discriminant is that of `gear` and `other`. On `held_out`, images of gear that nothing was
    trained on, it varies `share` times as much as the largest logit.
    """
    part = np.repeat([0.5 / len(gear), 0.5 / len(other)], [len(gear), len(other)])
    known = np.concatenate([gear, other]).astype(np.float64)
    mean = part @ known
    scale = np.sqrt(part @ (known - mean) ** 2) + 1e-6
    known = (known - mean) / scale
    covariance = known.T @ (known * part[:, None])
    apart = known[: len(gear)].mean(axis=0) - known[len(gear) :].mean(axis=0)
    towards = np.linalg.solve(covariance + SHRINK * np.eye(len(apart)), apart) / scale

    kernel, bias = (np.asarray(weights[f"{head}/{name}"]) for name in ("kernel", "bias"))
    dtype = kernel.dtype
    kernel, bias = kernel.astype(np.float64), bias.astype(np.float64)
    kernel, bias = kernel - kernel.mean(axis=1, keepdims=True), bias - bias.mean()
    largest = (held_out @ kernel + bias).max(axis=1)
    evidence = (held_out - mean) @ towards
    towards *= share * largest.std() / max(evidence.std(), 1e-12)
    return weights | {
        f"{head}/kernel": (kernel + towards[:, None]).astype(dtype),
        f"{head}/bias": (bias - mean @ towards).astype(dtype),
    }
