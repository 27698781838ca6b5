"""Pictures that are made when they are asked for: decoded, cut out, pasted."""

import math
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from jaxtyping import Int, UInt8

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


_ALIGNMENT = 64  # bytes, as JAX was seen to ask for (tests/data/test_batches.py would fail)


def empty_pictures(shape: tuple[int, ...]) -> UInt8[np.ndarray, "..."]:
    """An array u8 of this shape, not filled, for `jax.device_put` to share.

    Whoever hands it to JAX must not write to it any more.
    """
    size = math.prod(shape)
    memory = np.empty(size + _ALIGNMENT, np.uint8)
    start = -memory.ctypes.data % _ALIGNMENT
    return memory[start : start + size].reshape(shape)
