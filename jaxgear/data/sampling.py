"""Which examples make the batches of an epoch. A pure function of (seed, epoch).

Without choices each labelled image comes once. Images that corrections added may come more often,
and images without labels may join each batch.
"""

from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Bool, Int


@dataclass(frozen=True)
class Sampling:
    """The choices. A further copy of image i in an epoch has the index i + k * (number of images),
    so each copy has its own random view.
    """

    unlabelled: int = 0
    """Images without labels: the last ones of the split."""
    beside: int = 0
    """How many of them join each batch of labelled images, in its last rows."""
    added: Bool[np.ndarray, " N"] = field(default_factory=lambda: np.zeros(0, bool))
    """Which labelled images come from the new domain."""
    share: float = 0.0
    """The share of an epoch's labelled examples to draw from `added`, at least; the others make
    room, so an epoch has as many steps as without it."""

    def labelled(self, images: int, seed: int, epoch: int) -> Int[np.ndarray, " N"]:
        """The order of the labelled examples of an epoch, for a split of `images` images."""
        rng = np.random.default_rng((seed, epoch))
        count = images - self.unlabelled
        order = rng.permutation(count)
        new = np.flatnonzero(self.added)
        wanted = round(self.share * count)
        if not len(new) or wanted <= len(new):
            return order
        others = order[~self.added[order]][: count - wanted]
        return rng.permutation(np.concatenate([others, _cycled(rng, new, wanted, images)]))

    def without_labels(
        self, images: int, seed: int, epoch: int, steps: int
    ) -> Int[np.ndarray, "steps U"]:
        """The images without labels that join each batch of an epoch."""
        rng = np.random.default_rng((seed, epoch, 1))
        rows = np.arange(images - self.unlabelled, images)
        return _cycled(rng, rows, steps * self.beside, images).reshape(steps, self.beside)


ONCE = Sampling()  # each image once


def _cycled(
    rng: np.random.Generator, rows: Int[np.ndarray, " M"], count: int, images: int
) -> Int[np.ndarray, " C"]:
    """`count` of the rows in random order, all before one comes again, as indices of copies."""
    if not count:
        return np.zeros(0, np.int64)
    copies = range(-(-count // len(rows)))
    return np.concatenate([rng.permutation(rows) + copy * images for copy in copies])[:count]
