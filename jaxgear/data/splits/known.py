"""Which pictures a model was made with, by hash: what a bundle keeps of its data set.

Nine bytes a picture: the first eight of its sha256, and its split. A picture of no set is taken for
one of a million others with a probability of 5e-14.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from jaxtyping import UInt8, UInt64

from jaxgear.data.folder.names import ALL


@dataclass(frozen=True, eq=False)
class KnownPictures:
    """The pictures of a data set: `side_of` one that somebody has now."""

    digests: UInt64[np.ndarray, " N"]  # sorted; the first 8 bytes of each sha256, big-endian
    splits: UInt8[np.ndarray, " N"]  # index into ALL

    @classmethod
    def of(cls, sha256: Iterable[str], splits: Iterable[str]) -> "KnownPictures":
        """From hashes (hex) and splits. Of copies in several splits, the first in ALL counts."""
        digests = np.array([int(text[:16], 16) for text in sha256], np.uint64)
        numbers = np.array([ALL.index(split) for split in splits], np.uint8)
        order = np.lexsort((numbers, digests))
        digests, first = np.unique(digests[order], return_index=True)
        return cls(digests, numbers[order][first])

    def __len__(self) -> int:
        return len(self.digests)

    def split_of(self, sha256: str) -> str | None:
        """train, val, test or left_out; None for a picture that is not of the set."""
        digest = np.uint64(int(sha256[:16], 16))
        place = int(np.searchsorted(self.digests, digest))
        if place == len(self.digests) or self.digests[place] != digest:
            return None
        return ALL[self.splits[place]]

    def to_arrays(self) -> dict[str, np.ndarray]:
        """What is stored."""
        return {"digests": self.digests, "sides": self.splits}

    @classmethod
    def from_arrays(cls, arrays: dict[str, np.ndarray]) -> "KnownPictures":
        """The inverse of `to_arrays`.

        Raises:
            ValueError: not two arrays of the same length, or not in order.
        """
        digests, splits = (arrays.get(name, np.zeros((0, 0))) for name in ("digests", "sides"))
        sound = (
            (digests.dtype, splits.dtype) == (np.uint64, np.uint8)
            and digests.ndim == 1
            and digests.shape == splits.shape
            and bool((digests[:-1] < digests[1:]).all())
            and bool((splits < len(ALL)).all())
        )
        if not sound:
            raise ValueError("not a table of pictures")
        return cls(digests, splits)
