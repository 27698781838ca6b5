"""The hashes and splits of a data set's images; a bundle stores them to recognise the images.

Nine bytes an image: the first eight of its sha256, and its split. The collision probability of an
unknown image against a million images is 5e-14.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from jaxtyping import UInt8, UInt64

from jaxgear.data.folder import first_eight, split_numbers
from jaxgear.data.folder.names import ALL


@dataclass(frozen=True, eq=False)
class KnownPictures:
    """The images of a data set; `split_of` looks up an image by its hash."""

    digests: UInt64[np.ndarray, " N"]  # sorted; the first 8 bytes of each sha256, big-endian
    splits: UInt8[np.ndarray, " N"]  # index into ALL

    @classmethod
    def of(cls, sha256: Iterable[str], splits: Iterable[str]) -> "KnownPictures":
        """Builds it from hashes (hex) and splits. Copies get the first of their splits in ALL."""
        digests = first_eight(sha256)
        indices = split_numbers(splits)
        order = np.lexsort((indices, digests))
        digests, first = np.unique(digests[order], return_index=True)
        return cls(digests, indices[order][first])

    def __len__(self) -> int:
        return len(self.digests)

    def split_of(self, sha256: str) -> str | None:
        """train, val, test or left_out; None for an image outside the set."""
        digest = np.uint64(int(sha256[:16], 16))
        row = int(np.searchsorted(self.digests, digest))
        if row == len(self.digests) or self.digests[row] != digest:
            return None
        return ALL[self.splits[row]]

    def to_arrays(self) -> dict[str, np.ndarray]:
        """The arrays to store."""
        return {"digests": self.digests, "sides": self.splits}

    @classmethod
    def from_arrays(cls, arrays: dict[str, np.ndarray]) -> "KnownPictures":
        """The inverse of `to_arrays`.

        Raises:
            ValueError: not two valid arrays of the same length, or not sorted.
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
