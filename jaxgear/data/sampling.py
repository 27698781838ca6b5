"""Which images make an epoch, in which order. A pure function of (seed, epoch).

Without choices each image comes once. Images of a new domain may come more often.
"""

from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Bool, Int

BY_INDEX = 1 << 24
"""Larger sets are put in order index by index. An array of the order takes 8 bytes an image, and
on each host: 0.8 GB and 12 s an epoch for 100 million images."""


class InOrder:
    """The order of the set."""

    def __getitem__(self, positions: Int[np.ndarray, " B"]) -> Int[np.ndarray, " B"]:
        return positions


@dataclass(frozen=True)
class ByIndex:
    """A random order of `images` images that takes no memory: a block cipher of the position."""

    images: int
    seed: int
    epoch: int

    def __getitem__(self, positions: Int[np.ndarray, " B"]) -> Int[np.ndarray, " B"]:
        # Imported here: it takes a second, and smaller sets do without it.
        from grain.experimental import index_shuffle

        (key,) = np.random.SeedSequence((self.seed, self.epoch)).generate_state(1).tolist()
        shuffled = [
            index_shuffle(position, max_index=self.images - 1, seed=key, rounds=4)
            for position in positions.tolist()
        ]
        return np.array(shuffled, np.int64)


Order = Int[np.ndarray, " N"] | InOrder | ByIndex
"""What gives the index of the image at each position of an epoch."""


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
    by_index: int = BY_INDEX
    """Sets of more images than this are put in order by index."""

    def order(self, images: int, seed: int, epoch: int) -> Order:
        """The indices of an epoch, for a split of `images` images."""
        new = np.flatnonzero(self.new)
        wanted = round(self.share * images)
        choices = len(new) and wanted > len(new)
        if images > self.by_index and not choices:
            return ByIndex(images, seed, epoch)
        rng = np.random.default_rng((seed, epoch))
        order = rng.permutation(images)
        if not choices:
            return order
        others = order[~self.new[order]][: images - wanted]
        copies = [
            rng.permutation(new) + copy * images  # all of them before one comes again
            for copy in range(-(-wanted // len(new)))
        ]
        return rng.permutation(np.concatenate([others, np.concatenate(copies)[:wanted]]))


ONCE = Sampling()  # each image once
