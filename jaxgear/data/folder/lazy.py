"""Images that are made on access (decoded, cut out, pasted), and strings of columns."""

import math
import operator
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from typing import Any, NamedTuple, Protocol, overload, runtime_checkable

import numpy as np
from jaxtyping import Int, Shaped, UInt8, UInt64

Shape = tuple[int, int, int, int]
BLOCK = 4096  # rows that are converted at a time
_MANY = 2**20  # rows that are looked at at a time
_LOW = np.uint64(2**24 - 1)  # the bits of a value that `runs_of` looks at first


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
        out = empty_pictures((len(indices), *self.shape[1:]))

        def fill(position: int) -> None:
            out[position] = self._make(indices[position])

        with ThreadPoolExecutor(os.cpu_count()) as pool:  # Pillow releases the GIL
            for _ in pool.map(fill, range(len(indices))):
                pass  # reading a result raises the error of its thread
        return out


@runtime_checkable
class Rows(Protocol):
    """Images or records."""

    def __len__(self) -> int: ...
    def __getitem__(self, row: int, /) -> Any: ...


def one_after_the_other(first: Rows, second: Rows) -> Callable[[int], Any]:
    """A function of a row that gives that of `first`, or after its end that of `second`."""
    count = len(first)
    return lambda row: first[row] if row < count else second[row - count]


class Runs(NamedTuple):
    """The rows of values that may occur more than once, with equal values beside each other."""

    rows: Int[np.ndarray, " n"]
    starts: Int[np.ndarray, " m"]  # where a value starts in `rows`


def runs_of(values: UInt64[np.ndarray, " N"]) -> Runs:
    """The runs of all values that occur more than once, and of a few others."""
    ordered = np.sort(values)
    twice = ordered[1:][ordered[1:] == ordered[:-1]]
    del ordered
    marked = np.zeros(int(_LOW) + 1 if len(twice) else 0, bool)
    marked[twice & _LOW] = True  # rows with these low bits are looked at; one in 16 in vain
    parts = [np.zeros(0, np.int64)]
    for start in range(0, len(values) if len(twice) else 0, _MANY):
        parts.append(start + np.flatnonzero(marked[values[start : start + _MANY] & _LOW]))
    rows = np.concatenate(parts)
    rows = rows[np.argsort(values[rows])]
    own = values[rows]
    return Runs(rows, np.flatnonzero(np.append(True, own[1:] != own[:-1])[: len(rows)]))


class Column(Sequence[str]):
    """Strings that are made of the values of an array when asked for; behaves as a tuple of them.

    Equal strings have equal values. A list of the same strings is equal too.
    """

    def __init__(self, values: Shaped[np.ndarray, " N"], text: Callable[[Any], str]):
        """`text` gives the string of a value, which it gets as Python's own number or bytes."""
        self.values, self._text = values, text

    def __len__(self) -> int:
        return len(self.values)

    @overload
    def __getitem__(self, row: int) -> str: ...
    @overload
    def __getitem__(self, row: slice) -> "Column": ...
    def __getitem__(self, row):
        if isinstance(row, slice):
            return self.take(row)
        return self._text(self.values.item(row))

    def __iter__(self) -> Iterator[str]:
        for start in range(0, len(self), BLOCK):
            yield from map(self._text, self.values[start : start + BLOCK].tolist())

    def __eq__(self, other: object) -> bool:
        return equal_rows(self, other)

    @cached_property
    def runs(self) -> Runs:
        """`runs_of` the values, found once."""
        return runs_of(self.values)

    def take(self, rows: slice | Shaped[np.ndarray, " n"]) -> "Column":
        """The strings of some rows, which are gathered when first looked at."""
        return _Taken(self, rows)

    def followed_by(self, values: Shaped[np.ndarray, " n"]) -> "Column":
        """These strings, and those of other values after them."""
        return self.of(np.concatenate([self.values, values]))

    def of(self, values: Shaped[np.ndarray, " n"]) -> "Column":
        """The strings of other values."""
        return Column(values, self._text)

    def counts(self) -> dict[str, int]:
        """How often each of a few strings is there, in the order of their first rows."""
        values, counts = np.unique(self.values, return_counts=True)
        first = [int((self.values == value).argmax()) for value in values]
        order = np.argsort(first)
        return dict(zip(self.of(values[order]), counts[order].tolist(), strict=True))


class _Taken(Column):
    """Some rows of another column."""

    def __init__(self, column: Column, rows: slice | Shaped[np.ndarray, " n"]):
        self._column, self._rows, self._text = column, rows, column._text

    def __len__(self) -> int:
        return len(self.values if isinstance(self._rows, slice) else self._rows)

    @cached_property
    def values(self) -> Shaped[np.ndarray, " N"]:
        return self._column.values[self._rows]


def equal_rows(one: Sequence[Any], other: object) -> bool:
    """Whether `other` is a tuple, a list or the like of `one`, with equal items."""
    like = isinstance(other, tuple | list | type(one)) and len(one) == len(other)
    return like and all(map(operator.eq, one, other))


_ALIGNMENT = 64  # bytes; JAX shares only such memory, as seen (tests/data/test_batches.py checks)


def empty_pictures(shape: tuple[int, ...]) -> UInt8[np.ndarray, "..."]:
    """An uninitialised u8 array that `jax.device_put` can share without a copy.

    Do not write to it after passing it to JAX.
    """
    size = math.prod(shape)
    memory = np.empty(size + _ALIGNMENT, np.uint8)
    start = -memory.ctypes.data % _ALIGNMENT
    return memory[start : start + size].reshape(shape)
