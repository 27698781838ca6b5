"""Boxes of a photograph that may hold gear: more evidence of a class than in their surroundings."""

from collections.abc import Iterator

import numpy as np
from jaxtyping import Float

from jaxgear.prediction.proposals.boxes import Boxes, distinct
from jaxgear.prediction.proposals.evidence import Evidence

# Chosen on the development half of scripts/proposals.py.
SIZES = np.geomspace(0.04, 0.7, 12)  # square root of a box's area, of the longer side
SHAPES = (0.6, 0.85, 1.2, 1.7)  # width / height
STEP = 0.25  # between boxes, of their side
AROUND = 1.6  # side of the surroundings, in sides of the box
GROWTH = 0.1  # power of a box's area in its score
OVERLAP = 0.4  # IoU above which two boxes are one
_RANKED = 10000  # boxes that are compared with each other


def propose(evidence: Evidence, most: int) -> tuple[Boxes, Float[np.ndarray, " N"]]:
    """At most `most` boxes that overlap little, the best first, and their scores.

    The score of a box is that of its best class: the mean evidence inside of it, minus that around
    it (centre and surround; Itti, Koch and Niebur 1998, "A Model of Saliency-Based Visual Attention
    for Rapid Scene Analysis"). Sums over boxes come from integral images (Viola and Jones 2001).

    Args:
        evidence: logits of each class at each place, as `evidence_of` gives them.
    """
    height, width, classes = evidence.shape
    integral = np.zeros((height + 1, width + 1, classes), np.float64)
    integral[1:, 1:] = evidence.cumsum(axis=0, dtype=np.float64).cumsum(axis=1)
    parts = [_scored(integral, *sides) for sides in _sides(height, width)]
    boxes = np.concatenate([np.zeros((0, 4)), *(part[0] for part in parts)])
    scores = np.concatenate([np.zeros(0), *(part[1] for part in parts)])
    best = np.argsort(-scores, kind="stable")[:_RANKED]
    kept = best[distinct(boxes[best], scores[best], OVERLAP, most)]
    return boxes[kept], scores[kept]


def _sides(height: int, width: int) -> Iterator[tuple[int, int]]:
    """Heights and widths of boxes, in places; each fits into the photograph."""
    longer = max(height, width)
    sides = {
        (round(size * longer / shape**0.5), round(size * longer * shape**0.5))
        for size in SIZES
        for shape in SHAPES
    }
    yield from sorted((h, w) for h, w in sides if 1 <= h <= height and 1 <= w <= width)


def _scored(
    integral: Float[np.ndarray, "H W K"], h: int, w: int
) -> tuple[Boxes, Float[np.ndarray, " N"]]:
    """All boxes of h x w places, a quarter of their side apart, and their scores."""
    height, width = integral.shape[0] - 1, integral.shape[1] - 1
    top, left = _starts(height, h), _starts(width, w)
    inside, area = _sums(integral, top, top + h, left, left + w)
    more_h, more_w = (round(side * (AROUND - 1) / 2) for side in (h, w))
    whole, more = _sums(
        integral,
        np.maximum(top - more_h, 0),
        np.minimum(top + h + more_h, height),
        np.maximum(left - more_w, 0),
        np.minimum(left + w + more_w, width),
    )
    around = (whole - inside) / np.maximum(more - area, 1)
    scores = (inside / area - around).max(axis=2) * (h * w) ** GROWTH
    rows, columns = np.meshgrid(top, left, indexing="ij")
    boxes = np.stack([columns, rows, columns + w, rows + h], axis=2).reshape(-1, 4)
    return boxes / (width, height, width, height), scores.ravel()


def _starts(length: int, side: int) -> np.ndarray:
    """Places at which a box of `side` may start, from 0 to the last one."""
    count = int(np.ceil((length - side) / max(1, round(side * STEP)))) + 1
    return np.unique(np.linspace(0, length - side, count).round().astype(int))


def _sums(integral, top, bottom, left, right):
    """Sums over boxes [rows, columns, K], and their numbers of places [rows, columns, 1]."""
    sums = (
        integral[np.ix_(bottom, right)]
        - integral[np.ix_(top, right)]
        - integral[np.ix_(bottom, left)]
        + integral[np.ix_(top, left)]
    )
    return sums, np.outer(bottom - top, right - left)[..., None]
