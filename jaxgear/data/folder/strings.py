"""Strings of columns, which are made of numbers or bytes when asked for: hashes, groups, splits."""

import operator
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cached_property, partial
from typing import Any, NamedTuple, overload

import numpy as np
from jaxtyping import Int, Integer, Shaped, UInt, UInt8, UInt64

BLOCK = 4096  # rows that are converted at a time
HASHED = 2**48  # groups below are 12 hexadecimal digits, others places in a list of names
_MANY = 2**20  # rows that are looked at at a time
_LOW = np.uint64(2**24 - 1)  # the bits of a value that `runs_of` looks at first


class Runs(NamedTuple):
    """The rows of values that may occur more than once, with equal values beside each other."""

    rows: Int[np.ndarray, " n"]
    starts: Int[np.ndarray, " m"]  # where a value starts in `rows`


def runs_of(values: UInt64[np.ndarray, " N"]) -> Runs:
    """Rows of the repeated values, equal ones side by side, and of a few unique ones."""
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
        return equal_rows(self, other, Column)

    def __repr__(self) -> str:
        more = f", and {len(self) - 3} more" if len(self) > 3 else ""
        return f"<{', '.join(self[:3])}{more}>"

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


def equal_rows(one: Sequence[Any], other: object, kind: type) -> bool:
    """Whether `other` is a tuple, a list or of a kind, with the items of `one`."""
    like = isinstance(other, tuple | list | kind) and len(one) == len(other)
    return like and all(map(operator.eq, one, other))


def first_eight(sha256: Iterable[str]) -> UInt64[np.ndarray, " N"]:
    """The first 8 bytes of each hash (hex), as big-endian numbers."""
    if isinstance(sha256, Column):  # of 32 bytes each
        return sha256.values.view(">u8").reshape(len(sha256), 4)[:, 0].astype(np.uint64)
    return np.fromiter((int(text[:16], 16) for text in sha256), np.uint64)


def octets(sha256: Sequence[str]) -> UInt8[np.ndarray, "N 32"]:
    """Hashes (hex) as bytes."""
    if isinstance(sha256, Column):
        return np.ascontiguousarray(sha256.values).view(np.uint8).reshape(-1, 32)
    return np.frombuffer(bytes.fromhex("".join(sha256)), np.uint8).reshape(-1, 32)


def rows_of_hashes(own: Sequence[str], sha256: Sequence[str]) -> Int[np.ndarray, " n"]:
    """The row of `own` that has each sha256 (hex), or -1; of equal ones, the last."""
    return rows_of_keys(sortable(own), sortable(sha256))


def rows_of_keys(
    own: Shaped[np.ndarray, " N"], keys: Shaped[np.ndarray, " n"]
) -> Int[np.ndarray, " n"]:
    """`rows_of_hashes` of hashes as `sortable` has them."""
    if not len(own):
        return np.full(len(keys), -1)
    order = np.argsort(own, kind="stable")
    rows = order[np.searchsorted(own[order], keys, "right") - 1]
    return np.where(own[rows] == keys, rows, -1)


def sortable(sha256: Sequence[str]) -> Shaped[np.ndarray, " N"]:
    """Hashes (hex) as `as_strings` has them."""
    return as_strings(octets(sha256))


def as_strings(octets: UInt8[np.ndarray, "N 32"]) -> Shaped[np.ndarray, " N"]:
    """Hashes as NumPy's strings of 32 bytes. Made Python's, they lose zeros at their ends."""
    return np.ascontiguousarray(octets).view("S32")[:, 0]


def digests(octets: UInt8[np.ndarray, "N 32"]) -> Column:
    """Hashes as hexadecimal strings."""
    return Column(octets.view("V32")[:, 0], bytes.hex)


def narrow(numbers: Shaped[np.ndarray, " N"]) -> UInt[np.ndarray, " N"]:
    """The same numbers in 4 bytes each if these are enough, else in 8."""
    return numbers.astype(np.uint32 if numbers.max(initial=0) < 2**32 else np.uint64)


def group_number(name: str, names: dict[str, int]) -> int:
    """A group as a number: the first 12 digits of a hash, or a place in `names`, which grows."""
    if re.fullmatch("[0-9a-f]{12}", name):
        return int(name, 16)
    return HASHED + names.setdefault(name, len(names))


def group_numbers(groups: Column, names: dict[str, int]) -> UInt64[np.ndarray, " N"]:
    """`group_number` of each of some groups, which may be places in another list of names."""
    numbers = groups.values.copy()
    for row in np.flatnonzero(numbers >= HASHED).tolist():
        numbers[row] = group_number(groups[row], names)
    return numbers


def group_text(names: Sequence[str], number: int) -> str:
    """The inverse of `group_number`, with `names` in their order."""
    return f"{number:012x}" if number < HASHED else names[number - HASHED]


def grouped(groups: Iterable[str]) -> Column:
    """Groups as a column of numbers."""
    if isinstance(groups, Column):
        return groups
    names: dict[str, int] = {}
    numbers = np.fromiter((group_number(name, names) for name in groups), np.uint64)
    return Column(numbers, partial(group_text, list(names)))


def grouped_by_hash(sha256: Sequence[str]) -> Column:
    """The group of each hash (hex) if it is alone: its first 12 digits."""
    return Column(first_eight(sha256) >> np.uint64(16), partial(group_text, ()))


def distinct(strings: Sequence[str]) -> int:
    """The number of different strings."""
    if not isinstance(strings, Column):
        return len(set(strings))
    rows, starts = strings.runs
    return len(strings) - len(rows) + len(starts)


def path_at(text: UInt8[np.ndarray, " T"], starts: Integer[np.ndarray, " N"], row: int) -> str:
    """A path in a text of all paths (`Table`)."""
    end = len(text) if row + 1 == len(starts) else starts.item(row + 1)
    return text[starts.item(row) : end - 1].tobytes().decode()
