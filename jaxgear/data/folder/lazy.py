"""Pictures that are made when they are asked for: decoded, cut out, pasted."""

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from jaxtyping import Int, UInt8

from jaxgear.data.folder.buffers import empty_pictures
from jaxgear.data.folder.picture_cache import CacheChoice, PictureCache
from jaxgear.data.folder.read import Folder
from jaxgear.data.images.decode import load_letterboxed

Shape = tuple[int, int, int, int]


class LazyPictures:
    """Pictures that are made when they are asked for, like an array u8 [N, S, S, C] of them.

    An index gives one picture, u8 [S, S, C]; a slice or an array of them [n, S, S, C], made by
    threads; `[:]` all of them. Nothing is kept. Safe for many threads.
    """

    dtype = np.dtype(np.uint8)

    def __init__(self, shape: Shape, one: Callable[[int], UInt8[np.ndarray, "S S C"]]):
        """`one` makes the picture of a row, for many threads at once."""
        self.shape = shape
        self._one = one

    def __len__(self) -> int:
        return self.shape[0]

    def __iter__(self) -> Iterator[UInt8[np.ndarray, "S S C"]]:
        return map(self._one, range(len(self)))

    def __getitem__(
        self, rows: int | slice | list[int] | Int[np.ndarray, " n"]
    ) -> UInt8[np.ndarray, "..."]:
        """One picture, or several; `DataError` if a file is damaged or no longer the same."""
        if isinstance(rows, int | np.integer):
            return self._one(range(len(self))[rows])
        wanted = np.arange(len(self))[rows].tolist()
        out = empty_pictures((len(wanted), *self.shape[1:]))

        def fill(place: int) -> None:
            out[place] = self._one(wanted[place])

        with ThreadPoolExecutor(os.cpu_count()) as pool:  # Pillow releases the GIL
            for _ in pool.map(fill, range(len(wanted))):
                pass  # asks for each result, which raises what went wrong
        return out


def stored_pictures(folder: Folder, size: int, *, cache: CacheChoice = "user") -> LazyPictures:
    """The records of a folder letterboxed at `size`, as `folder.pixels` gives them, that stay where
    they are. What the cache has is taken from there.
    """
    store = PictureCache(cache, size, outside=folder.root)

    def one(row: int) -> UInt8[np.ndarray, "S S 3"]:
        record = folder.records[row]
        if (entry := store.get(folder.cache_key(record))) is not None:
            return entry.pixels
        return load_letterboxed(folder.read(record), size, record.path)

    return LazyPictures((len(folder.records), size, size, 3), one)
