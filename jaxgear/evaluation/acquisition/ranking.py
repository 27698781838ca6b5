"""The order in which pictures should be labelled: uncertain ones, each unlike those before it.

The score of a picture is its uncertainty times the distance to the nearest picture that was chosen
before it. Uncertainty alone chooses many pictures of one kind; distance alone (k-centre: O. Sener,
S. Savarese, "Active Learning for Convolutional Neural Networks: A Core-Set Approach", 2018) chooses
odd ones that the network knows well. `python -m scripts.acquisition` compares this with others.
"""

import numpy as np
from jaxtyping import Float, Int


def uncertainty(probs: Float[np.ndarray, "N K"]) -> Float[np.ndarray, " N"]:
    """1 - (probability of the likeliest class - that of the second), 0 to 1.

    T. Scheffer, C. Decomain, S. Wrobel, "Active Hidden Markov Models for Information Extraction",
    2001.
    """
    best = np.partition(probs, -2, axis=1)
    return 1 - (best[:, -1] - best[:, -2])


def rank(
    features: Float[np.ndarray, "N D"], probs: Float[np.ndarray, "N K"], count: int
) -> tuple[Int[np.ndarray, " n"], Float[np.ndarray, " n"]]:
    """At most `count` rows, the best first, and their scores, 0 to 1, which never grow.

    Args:
        features: of length 1. Half the distance of two rows is 0 to 1; before there is a chosen
            row, it is 1.
        probs: of the classes.
    """
    count = min(count, len(features))
    score = uncertainty(probs).astype(np.float64)  # with the pictures that are chosen so far
    rows, scores = np.zeros(count, int), np.zeros(count)
    weight, nearest = score.copy(), np.ones(len(score))
    for place in range(count):
        rows[place] = row = int(score.argmax())
        scores[place] = score[row]
        apart = np.sqrt(np.maximum(2 - 2 * (features @ features[row]), 0)) / 2
        nearest = np.minimum(nearest, apart)
        score = weight * nearest
        score[rows[: place + 1]] = -1
    return rows, scores
