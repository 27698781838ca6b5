"""Class probabilities of each picture by a classifier that was not trained on it.

The classifier is multinomial logistic regression with weight decay on features of a pretrained
network, fitted by L-BFGS (Liu & Nocedal 1989). Each fold of a cross-validation is scored by the
classifier of the other folds.
"""

import hashlib
from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.optimize import minimize
from scipy.special import softmax

from jaxgear.data.folder import grouped

FOLDS = 5
# Found with wrong labels put into 1,697 photographs (scripts/label_errors.py): weaker decay
# follows the wrong labels, stronger decay is no better.
DECAY = 0.1
ITERATIONS = 100


def assign_folds(groups: Sequence[str], folds: int = FOLDS) -> Int[np.ndarray, " N"]:
    """The fold of each picture, 0 to folds - 1; a group is never split.

    Groups are dealt out in the order of their hashes. Labels do not matter: a relabelled image
    keeps its fold.
    """
    groups = grouped(groups)
    _, first, number = np.unique(groups.values, return_index=True, return_inverse=True)
    hashes = (hashlib.sha256(group.encode()).digest() for group in groups.take(first))
    fold = np.empty(len(first), np.int64)
    fold[np.argsort(np.fromiter(hashes, "S32"))] = np.arange(len(first)) % folds
    return fold[number]


def out_of_sample(
    features: Float[np.ndarray, "N D"],
    labels: Int[np.ndarray, " N"],
    folds: Int[np.ndarray, " N"],
    classes: int,
) -> tuple[Float[np.ndarray, "N K"], Bool[np.ndarray, " N"]]:
    """Probabilities of all pictures, and whether each can be judged.

    A picture cannot be judged if all pictures with its label are in its own fold: the classifier
    has then never seen that class.

    The probabilities of a picture depend on the labels of the other folds alone: neither its own
    label nor those of its near-duplicates have a part in them.
    """
    x = unit_length(features) * np.float32(features.shape[1] ** 0.5)  # root mean square 1
    probs = np.zeros((len(labels), classes))
    judged = np.zeros(len(labels), bool)
    for fold in np.unique(folds):
        held_out, rest = folds == fold, folds != fold
        if rest.any():
            kernel, bias = fit(x[rest], labels[rest], classes)
            probs[held_out] = softmax(x[held_out] @ kernel + bias, axis=1)
            judged[held_out] = np.isin(labels[held_out], labels[rest])
    return probs, judged


def fit(
    x: Float[np.ndarray, "N D"],
    labels: Int[np.ndarray, " N"],
    classes: int,
    decay: float = DECAY,
    start: tuple[Float[np.ndarray, "D K"], Float[np.ndarray, " K"]] | None = None,
) -> tuple[Float[np.ndarray, "D K"], Float[np.ndarray, " K"]]:
    """Kernel and bias with the least mean cross-entropy (nats) + decay / 2 * |kernel|^2.

    The features x have a root mean square of about 1. `start`: a fit to similar data saves time.
    """
    count, width = x.shape
    true = np.eye(classes, dtype=np.float32)[labels]

    def loss(flat: Float[np.ndarray, " P"]) -> tuple[float, Float[np.ndarray, " P"]]:
        weights = flat.reshape(width + 1, classes).astype(np.float32)
        kernel = weights[:-1]
        probs = softmax(x @ kernel + weights[-1], axis=1)
        error = (probs - true) / count
        gradient = np.concatenate([x.T @ error + decay * kernel, error.sum(axis=0)[None]])
        entropy = -np.log(np.maximum((probs * true).sum(axis=1), 1e-30)).mean()
        return float(entropy + decay / 2 * np.square(kernel).sum()), gradient.ravel().astype(float)

    first = np.zeros((width + 1, classes)) if start is None else np.vstack(start)
    options = {"maxiter": ITERATIONS, "ftol": 1e-6}
    found = minimize(loss, first.ravel(), jac=True, method="L-BFGS-B", options=options)
    weights = found.x.reshape(width + 1, classes).astype(np.float32)
    return weights[:-1], weights[-1]


def unit_length(features: Float[np.ndarray, "N D"]) -> Float[np.ndarray, "N D"]:
    """Features scaled to length 1, float32."""
    length = np.linalg.norm(features, axis=1, keepdims=True)
    return (features / np.maximum(length, 1e-12)).astype(np.float32)
