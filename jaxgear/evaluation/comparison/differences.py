"""Is one method better than another, or was it luck? From runs of both with the same seeds.

The seed decides the split, the order and the initial weights. Differences are therefore taken seed
by seed, which removes what both methods share.
"""

import dataclasses
import functools
import math
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

LEVEL = 0.95  # of intervals; a difference counts if its p-value is below 1 - LEVEL
MOST_SEEDS = 1000  # more seeds than this are not suggested
RESAMPLES = 10_000


@dataclasses.dataclass(frozen=True)
class Spread:
    """Mean and sample standard deviation (None for a single value) of `n` values."""

    mean: float
    std: float | None
    n: int

    def __str__(self) -> str:
        return f"{self:.4f}"

    def __format__(self, spec: str) -> str:
        spec = spec or ".4f"
        return f"{self.mean:{spec}}" + ("" if self.std is None else f" ± {self.std:{spec}}")


@dataclasses.dataclass(frozen=True)
class Difference(Spread):
    """The spread of `n` paired differences, and what it says about their true mean."""

    low: float | None  # 95 % interval of the true mean, Student's t; None for a single value
    high: float | None
    p_value: float | None  # of a true mean of zero, times the number of comparisons
    more_seeds: int | None  # that would decide, if mean and spread stay; None: over MOST_SEEDS

    @property
    def decided(self) -> bool:
        """Whether the methods differ by more than luck."""
        return self.p_value is not None and self.p_value <= 1 - LEVEL

    def verdict(self) -> str:
        """A phrase: is it more than luck, and how many more seeds would tell?"""
        if self.decided:
            return "more than luck"
        if self.n == 1:
            return "one seed says nothing"
        if self.more_seeds is None:
            return "no difference seen"
        return f"may be luck; about {self.more_seeds} more seeds would tell"


def spread(values: Sequence[float]) -> Spread | None:
    """Mean and sample standard deviation; None without values."""
    if not values:
        return None
    std = float(np.std(values, ddof=1)) if len(values) > 1 else None
    return Spread(float(np.mean(values)), std, len(values))


def difference(values: Sequence[float], comparisons: int = 1) -> Difference | None:
    """What paired differences say: the paired t-test, corrected for the number of comparisons.

    Args:
        values: a difference for each seed.
        comparisons: how many pairs of methods are compared (Bonferroni).
    """
    if (own := spread(values)) is None:
        return None
    if own.std is None:
        return Difference(own.mean, None, own.n, None, None, None, None)
    from scipy import stats  # takes 0.3 s to import

    error = own.std / math.sqrt(own.n)
    reach = stats.t.ppf((1 + LEVEL) / 2, own.n - 1) * error
    p_value = min(1.0, comparisons * _p_value(own))
    more = 0 if p_value <= 1 - LEVEL else _more_seeds(own, comparisons)
    return Difference(own.mean, own.std, own.n, own.mean - reach, own.mean + reach, p_value, more)


def probability_best(values: Float[np.ndarray, "V S"]) -> Float[np.ndarray, " V"]:
    """Probability that each variant has the highest true mean, by the bootstrap over seeds.

    Args:
        values: the measure of each variant and seed, higher is better.
    """
    seeds = values.shape[1]
    drawn = np.random.default_rng(0).integers(0, seeds, (RESAMPLES, seeds))
    # Counts of each seed in each resample; a product with them is RESAMPLES means at once.
    counts = np.stack([np.bincount(row, minlength=seeds) for row in drawn])
    means = counts @ values.T / seeds  # [RESAMPLES, V]
    # Sums of other orders differ in the last bit: that is a tie.
    best = means >= means.max(1, keepdims=True) - 1e-12
    return (best / best.sum(1, keepdims=True)).mean(0)


def _p_value(own: Spread) -> float:
    """Two-sided; of the sign test where all differences are equal, as t needs a spread."""
    if own.mean == 0:
        return 1.0
    if own.std <= 1e-12 * abs(own.mean):
        return 0.5 ** (own.n - 1)
    from scipy import stats

    return float(2 * stats.t.sf(abs(own.mean) / (own.std / math.sqrt(own.n)), own.n - 1))


def _more_seeds(own: Spread, comparisons: int) -> int | None:
    """The fewest seeds to add until the same mean and spread decide; None: over MOST_SEEDS."""
    if own.mean == 0:
        return None
    n = np.arange(own.n + 1, MOST_SEEDS + own.n)
    needed = _least_t(own.n, comparisons) * own.std / np.sqrt(n)
    if own.std <= 1e-12 * abs(own.mean):
        needed = np.where(comparisons * 0.5 ** (n - 1.0) <= 1 - LEVEL, 0, np.inf)
    enough = needed < abs(own.mean)
    return int(enough.argmax()) + 1 if enough.any() else None


@functools.cache
def _least_t(seeds: int, comparisons: int) -> Float[np.ndarray, " N"]:
    """The t that decides with one seed more than `seeds`, with two, ... (0.5 ms to compute)."""
    from scipy import stats

    freedom = np.arange(seeds, MOST_SEEDS + seeds - 1)
    return stats.t.isf((1 - LEVEL) / 2 / comparisons, freedom)
