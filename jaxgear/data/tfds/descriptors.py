"""The descriptors of a prepared set, which stay on the disk until one is asked for."""

import functools
import hashlib
from bisect import bisect_right
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import UInt8

_OPEN = 32  # files that stay mapped into memory


class Span(NamedTuple):
    """The descriptors of the rows of a shard, one after the other in a file."""

    first: int  # row of the set
    file: Path
    offset: int  # bytes
    shape: tuple[int, int]  # rows and bytes of one
    sum: str | None  # sha256 (hex) of the file; None: it was compared before


class Descriptors:
    """A function from a row to its descriptor. Safe for many threads."""

    def __init__(self, spans: Sequence[Span], damaged: Callable[[Path, Exception], Exception]):
        """`damaged` makes the error about a file that is missing or not what its sum says."""
        self._spans, self._damaged = spans, damaged
        self._first = [span.first for span in spans]
        self._compared: set[Path] = set()
        self._opened = functools.lru_cache(_OPEN)(self._open)

    def __call__(self, row: int) -> bytes:
        """The descriptor of a row, read now."""
        number = bisect_right(self._first, row) - 1
        return self._opened(number)[row - self._first[number]].tobytes()

    def _open(self, number: int) -> UInt8[np.ndarray, "rows bytes"]:
        _, path, offset, shape, digest = self._spans[number]
        try:
            array = np.memmap(path, np.uint8, "r", offset, shape)
            if digest and path not in self._compared:
                if hashlib.sha256(array).hexdigest() != digest:
                    raise ValueError("does not match SHA256SUMS")
                self._compared.add(path)
        except (OSError, ValueError) as error:
            raise self._damaged(path, error) from None
        return array
