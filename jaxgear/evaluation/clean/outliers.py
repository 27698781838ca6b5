"""Outliers: pictures whose features are far from those of all others.

The measure is the distance to the k-th nearest picture (S. Ramaswamy, R. Rastogi, K. Shim,
"Efficient Algorithms for Mining Outliers from Large Data Sets", SIGMOD 2000), near-duplicates
left out. The limit is the upper fence of J. Tukey ("Exploratory Data Analysis", 1977).
"""

import numpy as np
from jaxtyping import Float, Integer

from jaxgear.evaluation.clean.probabilities import unit_length

NEIGHBOURS = 10
REFERENCE = 5000  # pictures that distances are measured to, at most: time stays linear
FENCE = 1.5  # interquartile ranges above the upper quartile
_BLOCK = 512


def distances(
    features: Float[np.ndarray, "N D"], groups: Integer[np.ndarray, " N"], k: int = NEIGHBOURS
) -> Float[np.ndarray, " N"]:
    """Distance from each picture to its k-th nearest one of another group, from 0 to 2.

    Features are scaled to length 1. With fewer than k such pictures, the distance to the farthest;
    0 if there is none. Beyond `REFERENCE` pictures, distances are to evenly spaced ones.
    """
    x = unit_length(features)
    rows = np.unique(np.linspace(0, len(x) - 1, min(len(x), REFERENCE)).astype(int))
    known, of = x[rows], groups[rows]
    found = np.zeros(len(x))
    for start in range(0, len(x), _BLOCK):
        block = slice(start, start + _BLOCK)
        square = np.maximum(2 - 2 * x[block] @ known.T, 0).astype(np.float64)
        square[groups[block, None] == of] = np.inf
        place = min(k, len(rows)) - 1
        kth = np.partition(square, place, axis=1)[:, place]
        farthest = np.where(np.isfinite(square), square, 0).max(axis=1)
        found[block] = np.sqrt(np.where(np.isfinite(kth), kth, farthest))
    return found


def limit(found: Float[np.ndarray, " N"]) -> float:
    """The distance above which a picture is an outlier."""
    low, high = np.percentile(found, [25, 75])
    return float(high + FENCE * (high - low))
