"""Images and records that are made on access: decoded, cut out, pasted."""

import math
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol, overload, runtime_checkable

import numpy as np
from jaxtyping import Int, Num, UInt8
from numpy.typing import DTypeLike

from jaxgear.data.folder.records import Record, Records

Shape = tuple[int, int, int, int]


class LazyPictures:
    """An array u8 [N, S, S, C] of images that are made on access.

    An integer gives one image, u8 [S, S, C]. A slice or an array of indices gives [n, S, S, C],
    made by several threads; `[:]` gives all. Nothing is cached. Safe for many threads.
    """

    dtype = np.dtype(np.uint8)

    def __init__(self, shape: Shape, make: Callable[[int], UInt8[np.ndarray, "S S C"]]):
        """`make` returns the image of a row; many threads call it at once."""
        self.shape = shape
        self._make = make

    def __len__(self) -> int:
        return self.shape[0]

    def __iter__(self) -> Iterator[UInt8[np.ndarray, "S S C"]]:
        return map(self._make, range(len(self)))

    def __getitem__(
        self, rows: int | np.integer | slice | list[int] | Int[np.ndarray, " n"]
    ) -> UInt8[np.ndarray, "..."]:
        """One image or several; `DataError` if a file is damaged or was changed."""
        if isinstance(rows, int | np.integer):
            return self._make(range(len(self))[rows])
        indices = np.arange(len(self))[rows].tolist()
        out = empty_shared((len(indices), *self.shape[1:]))

        def fill(position: int) -> None:
            out[position] = self._make(indices[position])

        with ThreadPoolExecutor(os.cpu_count()) as pool:  # Pillow releases the GIL
            list(pool.map(fill, range(len(indices))))  # raises the error of a thread
        return out


class LazyRecords(Sequence[Record]):
    """Records that are made when asked for, as `LazyPictures` makes images."""

    def __init__(self, count: int, make: Callable[[int], Record]):
        """`make` returns the record of a row; many threads call it at once."""
        self._count, self._make = count, make

    def __len__(self) -> int:
        return self._count

    @overload
    def __getitem__(self, row: int) -> Record: ...
    @overload
    def __getitem__(self, row: slice) -> "LazyRecords": ...
    def __getitem__(self, row):
        if isinstance(row, slice):
            return self.take(np.arange(self._count)[row])
        return self._make(range(self._count)[row])

    def take(self, rows: Int[np.ndarray, " n"]) -> "LazyRecords":
        """Some of the records."""
        return LazyRecords(len(rows), lambda row: self._make(rows.item(row)))


class LazyDescriptors(Sequence[bytes]):
    """The descriptors of records, each read from the disk when it is asked for."""

    def __init__(self, records: Records):
        self._rows, self._describe = records.rows, records.table.describe

    def __len__(self) -> int:
        return len(self._rows)

    @overload
    def __getitem__(self, row: int) -> bytes: ...
    @overload
    def __getitem__(self, row: slice) -> list[bytes]: ...
    def __getitem__(self, row):
        if isinstance(row, slice):
            return [self._describe(own) for own in self._rows[row].tolist()]
        return self._describe(self._rows.item(row))


@runtime_checkable
class Rows(Protocol):
    """Images or records."""

    def __len__(self) -> int: ...
    def __getitem__(self, row: int, /) -> Any: ...


def one_after_the_other(first: Rows, second: Rows) -> Callable[[int], Any]:
    """A function of a row that gives that of `first`, or after its end that of `second`."""
    count = len(first)
    return lambda row: first[row] if row < count else second[row - count]


_ALIGNMENT = 64  # bytes; JAX shares only such memory, as seen (tests/data/test_batches.py checks)


def empty_shared(shape: tuple[int, ...], dtype: DTypeLike = np.uint8) -> Num[np.ndarray, "..."]:
    """An uninitialised array that `jax.device_put` can share without a copy.

    Do not write to it after passing it to JAX.
    """
    size = math.prod(shape) * np.dtype(dtype).itemsize
    memory = np.empty(size + _ALIGNMENT, np.uint8)
    start = -memory.ctypes.data % _ALIGNMENT
    return memory[start : start + size].view(dtype).reshape(shape)
