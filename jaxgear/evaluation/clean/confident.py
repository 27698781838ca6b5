"""Confident learning: which labels are probably wrong, and how many.

C. Northcutt, L. Jiang, I. Chuang, "Confident Learning: Estimating Uncertainty in Dataset Labels",
Journal of Artificial Intelligence Research 70, 2021.
"""

import numpy as np
from jaxtyping import Float, Int


def thresholds(
    probs: Float[np.ndarray, "N K"], labels: Int[np.ndarray, " N"]
) -> Float[np.ndarray, " K"]:
    """For each class, the mean probability of the class over the pictures with that label.

    Infinite for a class without pictures.
    """
    counts = np.bincount(labels, minlength=probs.shape[1])
    of_label = np.bincount(labels, probs[np.arange(len(labels)), labels], probs.shape[1])
    return np.where(counts > 0, of_label / np.maximum(counts, 1), np.inf)


def confident_class(
    probs: Float[np.ndarray, "N K"], least: Float[np.ndarray, " K"]
) -> Int[np.ndarray, " N"]:
    """The likeliest of the classes that reach their threshold; -1 where none does."""
    reached = probs >= least
    best = np.where(reached, probs, -1.0).argmax(axis=1)
    return np.where(reached.any(axis=1), best, -1)


def confident_joint(
    probs: Float[np.ndarray, "N K"], labels: Int[np.ndarray, " N"]
) -> Int[np.ndarray, "K K"]:
    """Counts of pictures by given label (row) and confident class (column)."""
    classes = probs.shape[1]
    confident = confident_class(probs, thresholds(probs, labels))
    known = confident >= 0
    cells = labels[known] * classes + confident[known]
    return np.bincount(cells, minlength=classes**2).reshape(classes, classes)


def estimated_errors(joint: Int[np.ndarray, "K K"], labels: Int[np.ndarray, " N"]) -> float:
    """The estimated number of wrong labels: off the diagonal of the calibrated joint.

    Calibration scales each row of the joint to the number of pictures with that label. A row of
    zeros counts as right.
    """
    counts = np.bincount(labels, minlength=len(joint))
    rows = joint.sum(axis=1)
    off = rows - np.diag(joint)
    return float((off / np.maximum(rows, 1) * counts).sum())


def suspicion(
    probs: Float[np.ndarray, "N K"], labels: Int[np.ndarray, " N"], suggested: Int[np.ndarray, " N"]
) -> Float[np.ndarray, " N"]:
    """(1 + probability of the suggested class - probability of the label) / 2, from 0 to 1.

    It is the normalized margin of the paper, turned so that 1 is the worst. Over 0.5 the suggested
    class is the likelier one.
    """
    rows = np.arange(len(labels))
    return (1 + probs[rows, suggested] - probs[rows, labels]) / 2
