"""Whether a picture shows gear at all: a score of each picture, and the least that is accepted.

On tables of logits, and of features where a score needs them. A larger score is more
like gear. Bundles use the largest logit (`Bundle.score`); the others are what scripts/not_gear.py
compares it with.
"""

from typing import Any

import numpy as np
from jaxtyping import Float, Int

from jaxgear.bundle import Bundle

# Of pasted validation pictures, by the choice of a bundle's threshold. Plain ones are nearly all
# above it, so that a share of both would refuse twice as many of the pasted ones.
ACCEPTED = 0.95
ACCEPTS_ALL = "takes every picture for gear: it was trained without --backgrounds"


def energy(logits: Float[np.ndarray, "N K"]) -> Float[np.ndarray, " N"]:
    """log sum exp of the logits, the negative energy (Liu et al. 2020)."""
    z = logits.astype(np.float64)
    most = z.max(axis=1)
    return most + np.log(np.exp(z - most[:, None]).sum(axis=1))


def largest_less_mean(logits: Float[np.ndarray, "N K"]) -> Float[np.ndarray, " N"]:
    """The largest logit less their mean: what training on backgrounds alone with equal targets
    makes small where there is no gear (`backgrounds.empty`).
    """
    return (logits.max(axis=1) - logits.mean(axis=1)).astype(np.float64)


def evidence(logits: Float[np.ndarray, "N K"]) -> Float[np.ndarray, " N"]:
    """The mean logit: what evidence.py added to all of them."""
    return logits.mean(axis=1).astype(np.float64)


def confidence(logits: Float[np.ndarray, "N K"]) -> Float[np.ndarray, " N"]:
    """Log-probability of the likeliest class (Hendrycks & Gimpel 2017, up to the logarithm)."""
    return logits.max(axis=1) - energy(logits)


def mahalanobis(
    features: Float[np.ndarray, "N D"],
    known: Float[np.ndarray, "M D"],
    labels: Int[np.ndarray, " M"],
) -> Float[np.ndarray, " N"]:
    """Minus the distance to the nearest class mean of `known` features, under the covariance within
    classes (Lee et al. 2018), shrunk by a tenth to a multiple of the identity.
    """
    known = known.astype(np.float64)
    names, place = np.unique(labels, return_inverse=True)
    means = np.stack([known[place == i].mean(axis=0) for i in range(len(names))])
    within = known - means[place]
    covariance = within.T @ within / len(known)
    size = np.trace(covariance) / len(covariance)
    precision = np.linalg.inv(0.9 * covariance + 0.1 * size * np.eye(len(covariance)))
    apart = features.astype(np.float64)[:, None] - means  # [N, K, D]
    return -np.einsum("nkd,de,nke->nk", apart, precision, apart, optimize=True).min(axis=1)


def nearest(
    features: Float[np.ndarray, "N D"], known: Float[np.ndarray, "M D"], k: int = 5
) -> Float[np.ndarray, " N"]:
    """Minus the distance to the k-th nearest of `known`, features scaled to length 1 (Sun et al.
    2022).
    """
    a, b = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (features, known))
    return -np.sqrt(np.maximum(2 - 2 * np.partition(a @ b.T, -k, axis=1)[:, -k], 0))


def threshold(scores: Float[np.ndarray, " N"], accepted: float = ACCEPTED) -> float:
    """The largest threshold by which the share `accepted` of the scores is at or above it."""
    place = int(np.floor((1 - accepted) * len(scores)))
    return float(np.sort(scores)[place])


def acceptance(bundle: Bundle, logits: Float[np.ndarray, "N K"]) -> dict[str, Any]:
    """The fields of `test.json` about pictures of gear: the share that `bundle` takes for gear, and
    the score from which it does (None: it takes all).
    """
    accepted = [not bundle.refuses(score) for score in bundle.score(logits)]
    return {"accepted": sum(accepted) / len(accepted), "accept_from": bundle.accept_from}


def promise(bundle: Bundle) -> str:
    """What share of gear the threshold of a bundle accepts, by kind of picture."""
    shares = [f"{share:.0%} of {kind}" for kind, share in bundle.accepted_shares().items()]
    known = f"accepts {' and '.join(shares)} validation pictures" if shares else "was set by hand"
    return (
        f"its threshold {known}, and fewer of real outdoor photographs, which were not there to "
        "choose it"
    )


def auroc(gear: Float[np.ndarray, " N"], other: Float[np.ndarray, " M"]) -> float:
    """The chance that a picture of gear has a higher score than another; ties count half."""
    below = np.searchsorted(np.sort(other), gear, side="left")
    up_to = np.searchsorted(np.sort(other), gear, side="right")
    return float((below + up_to).sum() / (2 * len(gear) * len(other)))
