"""Which images make an epoch, in which order. A pure function of (seed, epoch).

Without choices each image comes once. Images of a new domain may come more often. By default an
epoch is shuffled as a whole; `Windowed` reads shards in sequence.
"""

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Bool, Int, Integer

from jaxgear.data.folder import Folder, Record, Records
from jaxgear.data.tfds.tables import Tables

BY_INDEX = 1 << 24
"""Larger sets are put in order index by index. An array of the order takes 8 bytes an image, and
on each host: 0.8 GB and 12 s an epoch for 100 million images."""


LANES = 16  # shards that are read at a time, if they are read in sequence


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


@dataclass(frozen=True, eq=False)
class Shards:
    """How the images of a split are stored."""

    images: Integer[np.ndarray, " N"]  # their indices, in the order in which they are stored
    lengths: Int[np.ndarray, " S"]  # images of each shard


def shards_of(records: Sequence[Record], folder: Folder) -> Shards | None:
    """How the images of a split of `folder` are stored; None: not in shards of `prepare`."""
    tables = getattr(folder, "places", None)
    if not isinstance(records, Records) or not isinstance(tables, Tables):
        return None
    if records.table.before:  # some were added, which are in no shard
        return None
    image_of = np.full(tables.parts[-1].rows.stop, -1, np.int32)  # of each row of the set
    image_of[records.rows] = np.arange(len(records), dtype=np.int32)
    here = image_of >= 0
    lengths = np.add.reduceat(here, [part.rows.start for part in tables.parts], dtype=np.int64)
    return Shards(image_of[here], lengths[lengths > 0])


class Windowed:
    """A random order that reads shards in sequence.

    The shards, in a random order, are one sequence, which is cut into lanes of equal length. A
    batch takes as many images of each lane, so a host reads the lanes of its part of the batch. In
    a lane the images are shuffled within windows. It takes the memory of a few windows.
    """

    def __init__(
        self, shards: Shards, window: int, batch_size: int, lanes: int, seed: int, epoch: int
    ):
        """`window` counts images over all lanes, whose number, at most `lanes`, divides a batch."""
        self._shards, self._batch, self._seed = shards, batch_size, (seed, epoch)
        lanes = math.gcd(batch_size, lanes)
        self._window, self._each = max(1, window // lanes), batch_size // lanes
        order = np.random.default_rng(self._seed).permutation(len(shards.lengths))
        self._first = (np.cumsum(shards.lengths) - shards.lengths)[order]
        self._ends = np.cumsum(shards.lengths[order])
        whole, rest = divmod(len(shards.images), batch_size)
        last = np.clip(rest - self._each * np.arange(lanes), 0, self._each)
        self._lanes = np.append(0, np.cumsum(whole * self._each + last))
        self._shuffled = functools.lru_cache(2 * lanes)(self._shuffle)

    def __getitem__(self, positions: Int[np.ndarray, " B"]) -> Int[np.ndarray, " B"]:
        batch, within = np.divmod(positions, self._batch)
        lane, place = np.divmod(within, self._each)
        window, within = np.divmod(batch * self._each + place, self._window)
        near = zip(lane.tolist(), window.tolist(), within.tolist(), strict=True)
        places = np.array([self._shuffled(*own)[at] for *own, at in near], np.int64)
        shard = np.searchsorted(self._ends, places, "right")
        stored = self._first[shard] + places - np.append(0, self._ends)[shard]
        return self._shards.images[stored]

    def _shuffle(self, lane: int, window: int) -> Int[np.ndarray, " w"]:
        """Places in the sequence of the images of a window."""
        first = self._lanes[lane] + window * self._window
        count = min(self._window, self._lanes[lane + 1] - first)
        return first + np.random.default_rng((*self._seed, lane, window)).permutation(count)


Order = Integer[np.ndarray, " N"] | InOrder | ByIndex | Windowed
"""What gives the index of the image at each position of an epoch."""


@dataclass(frozen=True)
class Sampling:
    """Which images an epoch draws, and in which order.

    Copy k of image i has the index i + k * (number of images), so each has its own random view.
    """

    new: Bool[np.ndarray, " N"] = field(default_factory=lambda: np.zeros(0, bool))
    """Which images come from the new domain."""
    share: float = 0.0
    """The share of an epoch to draw from `new`, at least; the others make room, so an epoch has as
    many steps as without it."""
    by_index: int = BY_INDEX
    """Sets of more images than this are put in order by index."""
    shards: Shards | None = None
    """Read shards in sequence; None: images at random."""
    window: int = 0
    """With `shards`: images are shuffled within windows of this many."""
    lanes: int = LANES
    """With `shards`: read this many at a time."""

    def in_order(self) -> Order:
        """The order of a pass that is not shuffled."""
        return InOrder() if self.shards is None else self.shards.images

    def order(self, images: int, seed: int, epoch: int, batch_size: int = 1) -> Order:
        """The indices of an epoch, for a split of `images` images."""
        if self.shards is not None:
            options = (self.window, batch_size, self.lanes, seed, epoch)
            return Windowed(self.shards, *options)
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
