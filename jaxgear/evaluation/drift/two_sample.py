"""Two-sample test: do two sets of features have the same distribution?

The statistic is the squared maximum mean discrepancy with a Gaussian kernel, whose width is the
median distance (A. Gretton et al., "A Kernel Two-Sample Test", Journal of Machine Learning Research
13, 2012). The p-value is that of a permutation test (B. Phipson, G. Smyth, "Permutation P-values
Should Never Be Zero", 2010), so its level holds for any number of pictures.

Pictures are permuted within classes. A set with another class balance, but with pictures of each
class that look as before, is no evidence.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

PERMUTATIONS = 1999  # the smallest p-value is 0.0005


@dataclass(frozen=True)
class Comparison:
    """The result of a test."""

    statistic: float
    p_value: float
    n: int  # new pictures
    reference: int  # known pictures


def compare(
    new: Float[np.ndarray, "N D"],
    known: Float[np.ndarray, "M D"],
    new_classes: Int[np.ndarray, " N"],
    known_classes: Int[np.ndarray, " M"],
    seed: int = 0,
    permutations: int = PERMUTATIONS,
) -> tuple[Comparison | None, dict[int, Comparison]]:
    """The test over all classes, and of each class that both sets hold.

    The statistic over all classes is the sum of theirs: n m / (n + m) * MMD^2 with n new and m
    known pictures of the class. None: no class is in both sets.
    """
    rng = np.random.default_rng(seed)
    found: dict[int, Comparison] = {}
    total = np.zeros(permutations + 1)
    for label in np.intersect1d(new_classes, known_classes):
        a, b = new[new_classes == label], known[known_classes == label]
        statistics = _statistics(a, b, rng, permutations)
        total += statistics
        found[int(label)] = _comparison(statistics, len(a), len(b))
    if not found:
        return None, {}
    n, m = (sum(getattr(c, name) for c in found.values()) for name in ("n", "reference"))
    return _comparison(total, n, m), found


def _comparison(statistics: Float[np.ndarray, " P"], n: int, m: int) -> Comparison:
    """The result of a statistic (first) and its values under permutation."""
    observed = statistics[0]
    # The observed one counts itself; equal values may differ in the last bits.
    as_large = (statistics >= observed - 1e-9 * max(1.0, abs(observed))).sum()
    return Comparison(float(observed), float(as_large / len(statistics)), n, m)


def _statistics(
    a: Float[np.ndarray, "n D"],
    b: Float[np.ndarray, "m D"],
    rng: np.random.Generator,
    permutations: int,
) -> Float[np.ndarray, " P"]:
    """n m / (n + m) * MMD^2 of the two sets, then of permutations of their union."""
    n, m = len(a), len(b)
    kernel = gaussian_kernel(np.concatenate([a, b]))
    first = np.zeros((permutations + 1, n + m), bool)
    first[0, :n] = True
    order = rng.random((permutations, n + m)).argsort(axis=1)
    np.put_along_axis(first[1:], order[:, :n], True, axis=1)
    weights = np.where(first, 1 / n, -1 / m)
    return n * m / (n + m) * np.einsum("pi,pi->p", weights @ kernel, weights)


def gaussian_kernel(x: Float[np.ndarray, "N D"]) -> Float[np.ndarray, "N N"]:
    """exp(-d^2 / (2 s^2)), where s is the median of the distances d between different rows."""
    x = x.astype(np.float64)
    norms = np.square(x).sum(axis=1)
    square = np.maximum(norms[:, None] + norms - 2 * x @ x.T, 0)
    apart = square[np.triu_indices(len(x), 1)]
    width = float(np.median(apart)) if len(apart) else 0.0
    return np.exp(-square / (2 * width)) if width > 0 else np.ones_like(square)


def holm(p_values: Sequence[float]) -> list[float]:
    """p-values corrected for their number: the chance of any false alarm stays at the level.

    S. Holm, "A Simple Sequentially Rejective Multiple Test Procedure", 1979.
    """
    corrected, least = [0.0] * len(p_values), 0.0
    for rank, place in enumerate(np.argsort(p_values, kind="stable")):
        least = max(least, min(1.0, (len(p_values) - rank) * p_values[place]))
        corrected[place] = least
    return corrected
