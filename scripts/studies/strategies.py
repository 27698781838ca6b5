"""Strategies that choose which pictures to label: what `scripts.acquisition` compares.

Each is a function of a `Pool`, a number of pictures and a generator, and returns rows of the pool,
the best first. `jaxgear next` uses "margin x spread", which is in `jaxgear.evaluation.acquisition`.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from jaxgear.evaluation.acquisition.ranking import rank


@dataclass(frozen=True)
class Pool:
    """Pictures without labels, and those that have some."""

    features: np.ndarray  # f32 [N, D], length 1
    probs: np.ndarray  # f32 [N, K]
    labelled: np.ndarray  # f32 [M, D], features of what was chosen before
    trained: np.ndarray  # f32 [T, D], features of all other training pictures


Strategy = Callable[[Pool, int, np.random.Generator], np.ndarray]


def random(pool: Pool, count: int, rng: np.random.Generator) -> np.ndarray:
    """Any pictures."""
    return rng.permutation(len(pool.features))[:count]


def margin(pool: Pool, count: int, rng: np.random.Generator) -> np.ndarray:
    """The smallest lead of the likeliest class over the second (Scheffer et al. 2001)."""
    return np.argsort(margins(pool.probs), kind="stable")[:count]


def margins(probs: np.ndarray) -> np.ndarray:
    """The lead of the likeliest class over the second, [N]."""
    best = np.sort(probs, axis=1)
    return best[:, -1] - best[:, -2]


def entropy(pool: Pool, count: int, rng: np.random.Generator) -> np.ndarray:
    """The largest entropy (Shannon) of the probabilities."""
    return np.argsort(-entropies(pool.probs), kind="stable")[:count]


def entropies(probs: np.ndarray) -> np.ndarray:
    """In nats, [N]."""
    return -(probs * np.log(np.maximum(probs, 1e-12))).sum(axis=1)


class Gradients:
    """Gradients of the last layer for the likeliest class: features times (probs - one-hot).

    Squared distances come from the factors: no array [N, D, K] is made.
    """

    def __init__(self, pool: Pool):
        self.x = pool.features
        self.r = pool.probs - np.eye(pool.probs.shape[1])[pool.probs.argmax(axis=1)]
        self.square = np.square(self.x).sum(axis=1) * np.square(self.r).sum(axis=1)

    def apart(self, row: int) -> np.ndarray:
        """The squared distance of each gradient to that of a row, [N]."""
        inner = (self.x @ self.x[row]) * (self.r @ self.r[row])
        return np.maximum(self.square + self.square[row] - 2 * inner, 0)


def badge(pool: Pool, count: int, rng: np.random.Generator) -> np.ndarray:
    """k-means++ on gradients (Ash et al. 2020). The first is the longest gradient."""
    gradients = Gradients(pool)
    rows = [int(gradients.square.argmax())]
    nearest = gradients.apart(rows[0])
    while len(rows) < min(count, len(pool.features)):
        nearest[rows] = 0
        weights = nearest / nearest.sum() if nearest.sum() > 0 else None
        if weights is None:
            rest = np.setdiff1d(np.arange(len(nearest)), rows)
            return np.array([*rows, *rng.permutation(rest)])[:count]
        rows.append(int(rng.choice(len(nearest), p=weights)))
        nearest = np.minimum(nearest, gradients.apart(rows[-1]))
    return np.array(rows)


def farthest_gradients(pool: Pool, count: int, rng: np.random.Generator) -> np.ndarray:
    """The gradient that is farthest from those chosen, again and again; BADGE without chance."""
    gradients = Gradients(pool)
    rows: list[int] = []
    nearest = gradients.square.copy()  # as if the gradient 0 were chosen
    while len(rows) < min(count, len(pool.features)):
        nearest[rows] = -1
        rows.append(int(nearest.argmax()))
        nearest = np.minimum(nearest, gradients.apart(rows[-1]))
    return np.array(rows)


def k_centre(pool: Pool, count: int, rng: np.random.Generator) -> np.ndarray:
    """The picture that is farthest from all labelled ones, again and again (Sener et al. 2018)."""
    known = np.concatenate([pool.trained, pool.labelled])
    nearest = 2 - 2 * (pool.features @ known.T).max(axis=1)
    rows: list[int] = []
    while len(rows) < min(count, len(pool.features)):
        nearest[rows] = -1
        rows.append(int(nearest.argmax()))
        nearest = np.minimum(nearest, 2 - 2 * pool.features @ pool.features[rows[-1]])
    return np.array(rows)


def typical(pool: Pool, count: int, rng: np.random.Generator) -> np.ndarray:
    """The most typical picture of each of the largest clusters without labels: TypiClust (Hacohen
    et al. 2022). Typicality: the inverse of the mean distance to 20 neighbours in the cluster.
    """
    both = np.concatenate([pool.features, pool.labelled])
    count = min(count, len(pool.features))
    clusters = clustered(both, min(len(both), len(pool.labelled) + count), rng)
    own, taken = clusters[: len(pool.features)], set(clusters[len(pool.features) :].tolist())
    sizes = np.bincount(own, minlength=clusters.max() + 1)
    order = sorted(np.flatnonzero(sizes), key=lambda c: (c in taken, -sizes[c], c))
    rows: list[int] = []
    while len(rows) < count:
        for cluster in order:
            members = np.setdiff1d(np.flatnonzero(own == cluster), rows)
            if len(members) and len(rows) < count:
                rows.append(int(members[typicality(pool.features[members]).argmax()]))
    return np.array(rows)


def typicality(x: np.ndarray, neighbours: int = 20) -> np.ndarray:
    """One over the mean distance to the nearest rows, [N]."""
    if len(x) == 1:
        return np.ones(1)
    apart = np.sqrt(np.maximum(2 - 2 * x @ x.T, 0))
    np.fill_diagonal(apart, 0)
    near = np.sort(apart, axis=1)[:, 1 : neighbours + 1]
    return 1 / np.maximum(near.mean(axis=1), 1e-6)


def clustered(x: np.ndarray, count: int, rng: np.random.Generator, weights=None) -> np.ndarray:
    """The cluster of each row by k-means, [N]: k-means++, then Lloyd's steps."""
    weights = np.ones(len(x)) if weights is None else np.maximum(weights, 1e-9)
    centres = [x[rng.choice(len(x), p=weights / weights.sum())]]
    nearest = np.square(x - centres[0]).sum(axis=1)
    for _ in range(count - 1):
        chance = weights * nearest
        if chance.sum() <= 0:
            break
        centres.append(x[rng.choice(len(x), p=chance / chance.sum())])
        nearest = np.minimum(nearest, np.square(x - centres[-1]).sum(axis=1))
    centres = np.stack(centres)
    for _ in range(20):
        apart = np.square(centres).sum(axis=1) - 2 * x @ centres.T
        own = apart.argmin(axis=1)
        for cluster in np.unique(own):
            mine = own == cluster
            centres[cluster] = np.average(x[mine], axis=0, weights=weights[mine])
    return own


def margin_in_clusters(pool: Pool, count: int, rng: np.random.Generator) -> np.ndarray:
    """The smallest margin of each of `count` clusters."""
    clusters = clustered(pool.features, min(count, len(pool.features)), rng)
    order = np.argsort(margins(pool.probs), kind="stable")
    seen: dict[int, int] = {}
    rank = []
    for row in order:  # the first of each cluster, then the second of each
        seen[clusters[row]] = seen.get(clusters[row], 0) + 1
        rank.append(seen[clusters[row]])
    return order[np.argsort(rank, kind="stable")][:count]


def weighted_clusters(pool: Pool, count: int, rng: np.random.Generator) -> np.ndarray:
    """Of 10 * count small margins, the nearest to cluster centres weighted by 1 - margin (Zhdanov
    2019).
    """
    few, rows = margin(pool, 10 * count, rng), []
    x, weights = pool.features[few], 1 - margins(pool.probs[few])
    own = clustered(x, min(count, len(few)), rng, weights)
    for cluster in np.unique(own):
        mine = np.flatnonzero(own == cluster)
        centre = np.average(x[mine], axis=0, weights=np.maximum(weights[mine], 1e-9))
        rows.append(few[mine[np.square(x[mine] - centre).sum(axis=1).argmin()]])
    return np.array([*rows, *(row for row in few if row not in rows)])[:count]


def margin_times_distance(pool: Pool, count: int, rng: np.random.Generator) -> np.ndarray:
    """The largest (1 - margin) * distance to the nearest labelled or chosen picture."""
    known = np.concatenate([pool.trained, pool.labelled])
    nearest = np.sqrt(np.maximum(2 - 2 * (pool.features @ known.T).max(axis=1), 0))
    return _greedy(pool, count, 1 - margins(pool.probs), nearest)


def margin_times_spread(pool: Pool, count: int, rng: np.random.Generator) -> np.ndarray:
    """The largest (1 - margin) * distance to the nearest chosen picture: `jaxgear next`."""
    return rank(pool.features, pool.probs, count)[0]


def entropy_times_distance(pool: Pool, count: int, rng: np.random.Generator) -> np.ndarray:
    """The largest entropy * distance to the nearest chosen picture."""
    nearest = np.full(len(pool.features), 2.0)
    if len(pool.labelled):
        nearest = np.sqrt(np.maximum(2 - 2 * (pool.features @ pool.labelled.T).max(axis=1), 0))
    return _greedy(pool, count, entropies(pool.probs), nearest)


def _greedy(pool: Pool, count: int, weight: np.ndarray, nearest: np.ndarray) -> np.ndarray:
    rows: list[int] = []
    while len(rows) < min(count, len(pool.features)):
        score = weight * nearest
        score[rows] = -1
        rows.append(int(score.argmax()))
        apart = np.sqrt(np.maximum(2 - 2 * pool.features @ pool.features[rows[-1]], 0))
        nearest = np.minimum(nearest, apart)
    return np.array(rows)


def covering(pool: Pool, count: int, rng: np.random.Generator) -> np.ndarray:
    """The picture that adds most to sum over pictures of entropy * similarity to the nearest chosen
    one (facility location, weighted by uncertainty).
    """
    weight = entropies(pool.probs)
    similar = np.maximum(pool.features @ pool.features.T, 0)
    covered = np.zeros(len(similar))
    if len(pool.labelled):
        covered = np.maximum(pool.features @ pool.labelled.T, 0).max(axis=1)
    rows: list[int] = []
    while len(rows) < min(count, len(similar)):
        gain = (weight[:, None] * np.maximum(similar - covered[:, None], 0)).sum(axis=0)
        gain[rows] = -1
        rows.append(int(gain.argmax()))
        covered = np.maximum(covered, similar[:, rows[-1]])
    return np.array(rows)


STRATEGIES: dict[str, Strategy] = {
    "random": random,
    "margin": margin,
    "entropy": entropy,
    "BADGE": badge,
    "farthest gradients": farthest_gradients,
    "k-centre": k_centre,
    "TypiClust": typical,
    "margin in clusters": margin_in_clusters,
    "weighted clusters": weighted_clusters,
    "margin x distance": margin_times_distance,
    "margin x spread": margin_times_spread,
    "entropy x distance": entropy_times_distance,
    "covering": covering,
}
