"""Whether probabilities mean what they say: of what is called 0.9 sure, 0.9 should be right.

numpy alone, on tables of logits or probabilities.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

COLDEST, HOTTEST = 0.01, 100.0  # temperatures beyond are those of logits that say nothing


@dataclass(frozen=True)
class Bin:
    """Pictures whose confidence (the largest probability) is in (low, high]."""

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
    """The temperature T by which softmax(logits / T) has the least cross-entropy (Guo et al. 2017,
    "On Calibration of Modern Neural Networks"). The order of classes stays.

    The labels are smoothed by 1 / (N + 2), the share of errors to expect after N pictures without
    one (Platt 1999, for sigmoids). Without that a model that has every validation picture right
    would be told to be certain of everything.
    """
    n, classes = logits.shape
    z = logits.astype(np.float64)
    error = 1 / (n + 2)
    wanted = (1 - error) * z[np.arange(n), labels] + error * z.mean(axis=1)
    if not np.ptp(z, axis=1).any() or classes == 1:
        return 1.0
    # The derivative by 1 / T, expected less wanted logit, grows with 1 / T: bisection.
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
    """The reliability diagram: `bins` equal steps of confidence, those that hold pictures."""
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
    """Mean distance of confidence and accuracy over pictures (Naeini et al. 2015), 0 to 1."""
    table = reliability(probs, labels, bins)
    return sum(row.n * abs(row.confidence - row.accuracy) for row in table) / len(labels)
