"""Which images make an epoch. A pure function of (seed, epoch).

Without choices each image comes once. Images of a new domain may come more often.
"""

from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Bool, Int


@dataclass(frozen=True)
class Sampling:
    """The choices. A further copy of image i in an epoch has the index i + k * (number of images),
    so each copy has its own random view.
    """

    new: Bool[np.ndarray, " N"] = field(default_factory=lambda: np.zeros(0, bool))
    """Which images come from the new domain."""
    share: float = 0.0
    """The share of an epoch to draw from `new`, at least; the others make room, so an epoch has as
    many steps as without it."""

    def order(self, images: int, seed: int, epoch: int) -> Int[np.ndarray, " N"]:
        """The indices of an epoch, for a split of `images` images."""
        rng = np.random.default_rng((seed, epoch))
        order = rng.permutation(images)
        new = np.flatnonzero(self.new)
        wanted = round(self.share * images)
        if not len(new) or wanted <= len(new):
            return order
        others = order[~self.new[order]][: images - wanted]
        copies = [
            rng.permutation(new) + copy * images  # all of them before one comes again
            for copy in range(-(-wanted // len(new)))
        ]
        return rng.permutation(np.concatenate([others, np.concatenate(copies)[:wanted]]))


ONCE = Sampling()  # each image once
