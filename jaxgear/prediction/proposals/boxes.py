"""Boxes: (left, top, right, bottom) as fractions of a photograph's width and height."""

import numpy as np
from jaxtyping import Float, Int

Boxes = Float[np.ndarray, "N 4"]


def iou(a: Float[np.ndarray, "A 4"], b: Float[np.ndarray, "B 4"]) -> Float[np.ndarray, "A B"]:
    """Intersection over union of every box of `a` with every box of `b`."""
    start = np.maximum(a[:, None, :2], b[None, :, :2])
    end = np.minimum(a[:, None, 2:], b[None, :, 2:])
    shared = np.clip(end - start, 0, None).prod(axis=2)
    sides = [(box[:, 2:] - box[:, :2]).prod(axis=1) for box in (a, b)]
    return shared / np.maximum(sides[0][:, None] + sides[1] - shared, 1e-12)


def distinct(
    boxes: Boxes, scores: Float[np.ndarray, " N"], overlap: float, most: int
) -> Int[np.ndarray, " n"]:
    """Indices of at most `most` boxes, the best first, none of which overlap more than `overlap`.

    Greedy non-maximum suppression. Of equal scores the first box is kept.
    """
    left, kept = np.argsort(-scores, kind="stable"), []
    while len(left) and len(kept) < most:
        best, *_ = left
        kept.append(best)
        left = left[1:][iou(boxes[best : best + 1], boxes[left[1:]])[0] <= overlap]
    return np.array(kept, np.int64)


def found(
    proposed: Boxes, true: Float[np.ndarray, "T 4"], overlap: float = 0.5
) -> Int[np.ndarray, " T"]:
    """For each true box, the rank (from 0) of the first proposal with this IoU; -1: none has it."""
    if not len(proposed):
        return np.full(len(true), -1)
    hits = iou(true, proposed) >= overlap
    return np.where(hits.any(axis=1), hits.argmax(axis=1), -1)
