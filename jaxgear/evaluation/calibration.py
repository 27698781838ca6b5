"""Calibration: of the images that the model is 0.9 sure of, 0.9 should be right.

NumPy alone, on tables of logits or probabilities.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

COLDEST, HOTTEST = 0.01, 100.0  # outside of this range the logits carry no information


@dataclass(frozen=True)
class Bin:
    """Images whose confidence (the largest probability) is in (low, high]."""

    low: float
    high: float
    n: int
    confidence: float  # mean
    accuracy: float


def log_softmax(
    logits: Float[np.ndarray, "N K"], temperature: float = 1.0
) -> Float[np.ndarray, "N K"]:
    """Log-probabilities in float64."""
    scaled = logits.astype(np.float64) / temperature
    scaled -= scaled.max(axis=1, keepdims=True)
    return scaled - np.log(np.exp(scaled).sum(axis=1, keepdims=True))


def fit_temperature(logits: Float[np.ndarray, "N K"], labels: Int[np.ndarray, " N"]) -> float:
    """The temperature T that minimises the cross-entropy of softmax(logits / T) (Guo et al. 2017,
    "On Calibration of Modern Neural Networks"). The order of classes stays.

    Labels are smoothed by 1 / (N + 2), the error rate to expect after N images without an error
    (Platt 1999, for sigmoids). Without smoothing, a model that is right on every validation image
    would become certain of everything.
    """
    n, classes = logits.shape
    z = logits.astype(np.float64)
    error = 1 / (n + 2)
    wanted = (1 - error) * z[np.arange(n), labels] + error * z.mean(axis=1)
    if not np.ptp(z, axis=1).any() or classes == 1:
        return 1.0
    # The derivative with respect to 1 / T is the expected minus the wanted logit. It grows with
    # 1 / T, so bisection finds its root.
    cold, hot = np.log(COLDEST), np.log(HOTTEST)
    for _ in range(60):
        middle = (cold + hot) / 2
        probs = np.exp(log_softmax(z, float(np.exp(middle))))
        if ((probs * z).sum(axis=1) - wanted).sum() > 0:
            cold = middle
        else:
            hot = middle
    return float(np.clip(np.exp((cold + hot) / 2), COLDEST, HOTTEST))


def reliability(
    probs: Float[np.ndarray, "N K"], labels: Int[np.ndarray, " N"], bins: int = 15
) -> list[Bin]:
    """The non-empty bins of a reliability diagram with `bins` equal steps of confidence."""
    confidence = probs.max(axis=1).astype(np.float64)
    right = probs.argmax(axis=1) == labels
    place = np.clip(np.ceil(confidence * bins).astype(int) - 1, 0, bins - 1)
    return [
        Bin(
            low=i / bins,
            high=(i + 1) / bins,
            n=int(inside.sum()),
            confidence=float(confidence[inside].mean()),
            accuracy=float(right[inside].mean()),
        )
        for i in range(bins)
        if (inside := place == i).any()
    ]


def expected_calibration_error(
    probs: Float[np.ndarray, "N K"], labels: Int[np.ndarray, " N"], bins: int = 15
) -> float:
    """Mean distance between confidence and accuracy over images, 0 to 1 (Naeini et al. 2015)."""
    table = reliability(probs, labels, bins)
    return sum(row.n * abs(row.confidence - row.accuracy) for row in table) / len(labels)
