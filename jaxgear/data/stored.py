"""Pictures that stay where they are: an array of them that decodes what is asked for."""

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from jaxtyping import Int, UInt8

from jaxgear.data.cache import CacheChoice, PictureCache
from jaxgear.data.folder import Folder
from jaxgear.data.images import load_letterboxed


class StoredPictures:
    """The records of a folder letterboxed at `size`, like the array that `folder.pixels` gives.

    An index gives one picture, u8 [S, S, 3]; a slice or an array of them [n, S, S, 3], decoded by
    threads. What the cache has is taken from there; nothing is kept. Safe for many threads.
    """

    dtype = np.dtype(np.uint8)

    def __init__(self, folder: Folder, size: int, *, cache: CacheChoice = "user"):
        self._folder, self._size = folder, size
        self._cache = PictureCache(cache, size, outside=folder.root)

    @property
    def shape(self) -> tuple[int, int, int, int]:
        return (len(self), self._size, self._size, 3)

    def __len__(self) -> int:
        return len(self._folder.records)

    def __iter__(self) -> Iterator[UInt8[np.ndarray, "S S 3"]]:
        return map(self._one, range(len(self)))

    def __getitem__(self, rows: int | slice | Int[np.ndarray, " n"]) -> UInt8[np.ndarray, "..."]:
        """One picture, or several; `DataError` if a file is damaged or no longer the same."""
        if isinstance(rows, int | np.integer):
            return self._one(range(len(self))[rows])
        wanted = np.arange(len(self))[rows].tolist()
        out = np.empty((len(wanted), *self.shape[1:]), np.uint8)
        with ThreadPoolExecutor(os.cpu_count()) as pool:  # Pillow releases the GIL
            for place, picture in enumerate(pool.map(self._one, wanted)):
                out[place] = picture
        return out

    def _one(self, row: int) -> UInt8[np.ndarray, "S S 3"]:
        record = self._folder.records[row]
        if (entry := self._cache.get(self._folder.cache_key(record))) is not None:
            return entry.pixels
        return load_letterboxed(self._folder.read(record), self._size, record.path)
