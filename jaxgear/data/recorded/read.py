"""Reads `splits.json`, which lists images or names the columns of them, as one thing."""

import re
import struct
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any, overload

import numpy as np
from jaxtyping import Int, Integer, Shaped

from jaxgear.data.folder import (
    Column,
    digests,
    equal_rows,
    group_text,
    path_at,
    rows_of_split,
)
from jaxgear.data.folder.names import ALL
from jaxgear.data.tfds.columns import read_column
from jaxgear.errors import CheckpointError
from jaxgear.files import read_json


@dataclass(frozen=True, slots=True)
class SplitRow:
    """An image of a run's set."""

    path: str  # relative to the data folder
    sha256: str
    name: str  # of its class
    group: str  # shared by near-duplicates
    split: str  # one of `data.folder.names.ALL`


class Pictures(Sequence[SplitRow]):
    """The images of a run's set, sorted by path; behaves as a tuple of `SplitRow`.

    Of a large set a row is made when it is asked for, and a column is read when it is. Walk over
    the columns rather than over rows.
    """

    def __init__(self, rows: Sequence[SplitRow]):
        self._rows = tuple(rows)

    @cached_property
    def paths(self) -> Sequence[str]:
        return tuple(row.path for row in self._rows)

    @cached_property
    def sha256(self) -> Sequence[str]:
        return tuple(row.sha256 for row in self._rows)

    @cached_property
    def names(self) -> Sequence[str]:
        """The class of each image."""
        return tuple(row.name for row in self._rows)

    @cached_property
    def groups(self) -> Sequence[str]:
        return tuple(row.group for row in self._rows)

    @cached_property
    def splits(self) -> Sequence[str]:
        return tuple(row.split for row in self._rows)

    def __len__(self) -> int:
        return len(self._rows)

    def __iter__(self) -> Iterator[SplitRow]:
        return iter(self._rows)

    @overload
    def __getitem__(self, row: int) -> SplitRow: ...
    @overload
    def __getitem__(self, row: slice) -> "Pictures": ...
    def __getitem__(self, row):
        if isinstance(row, slice):
            return self.take(np.arange(len(self))[row])
        return self._rows[row]

    def __eq__(self, other: object) -> bool:
        return equal_rows(self, other, Pictures)

    def take(self, rows: Int[np.ndarray, " n"]) -> "Pictures":
        """Some of the images."""
        return Pictures([self._rows[row] for row in rows.tolist()])

    def of_splits(self, *names: str) -> "Pictures":
        """The images of some splits, one split after the other."""
        return self.take(np.concatenate([rows_of_split(self.splits, name) for name in names]))

    def in_groups(self) -> "Pictures":
        """The images that share a group with others, and maybe a few more."""
        return self

    def counts(self) -> Mapping[tuple[str, str], int]:
        """The number of images of each class and split that has any."""
        return Counter(zip(self.names, self.splits, strict=True))


class _Mapped(Pictures):
    """Images whose columns are mapped into memory. A column is compared with its sum once."""

    def __init__(
        self,
        column: Callable[[str], Shaped[np.ndarray, "..."]],
        classes: tuple[str, ...],
        order: Integer[np.ndarray, " N"],
    ):
        """`order` has the rows of `column` of these images."""
        self._column, self._classes, self._order = column, classes, order

    @cached_property
    def paths(self) -> Sequence[str]:
        return Column(self._order, partial(path_at, self._column("text"), self._column("starts")))

    @cached_property
    def sha256(self) -> Sequence[str]:
        return digests(self._column("sha256")).take(self._order)

    @cached_property
    def names(self) -> Sequence[str]:
        return Column(self._column("label")[self._order], self._classes.__getitem__)

    @cached_property
    def groups(self) -> Sequence[str]:
        names = self._column("names").tobytes().decode().split("\0")[1:-1]
        return Column(self._column("group")[self._order], partial(group_text, names))

    @cached_property
    def splits(self) -> Column:
        return Column(self._column("split")[self._order], ALL.__getitem__)

    def __len__(self) -> int:
        return len(self._order)

    def __iter__(self) -> Iterator[SplitRow]:
        return map(SplitRow, self.paths, self.sha256, self.names, self.groups, self.splits)

    def __getitem__(self, row):
        if isinstance(row, slice):
            return self.take(np.arange(len(self))[row])
        (found,) = self.take(np.array([row]))
        return found

    def take(self, rows: Int[np.ndarray, " n"]) -> "_Mapped":
        return _Mapped(self._column, self._classes, self._order[rows])

    def in_groups(self) -> "_Mapped":
        return self.take(np.sort(self.groups.runs.rows))

    def counts(self) -> Mapping[tuple[str, str], int]:
        pairs = self.names.values.astype(np.int64) * len(ALL) + self.splits.values
        numbers = np.bincount(pairs, minlength=len(ALL) * len(self._classes)).tolist()
        keys = ((name, split) for name in self._classes for split in ALL)
        return Counter({key: n for key, n in zip(keys, numbers, strict=True) if n})


@dataclass(frozen=True, eq=False)
class Recorded:
    """The content of `splits.json`."""

    fingerprint: str
    classes: tuple[str, ...]
    pictures: Pictures
    unlabelled: Sequence[Mapping[str, Any]] = ()  # rows of `describe_unlabelled`

    @classmethod
    def of(cls, content: Mapping[str, Any], run: Path) -> "Recorded":
        """That of the JSON value, in the run folder `run`.

        Raises:
            KeyError, TypeError, ValueError: something is missing, or not as `describe` writes it.
            CheckpointError: a column is missing or damaged.
        """
        classes, pictures = tuple(content["classes"]), content["pictures"]
        if isinstance(pictures, list):
            keys = ("path", "sha256", "class", "group", "side")
            # Interned: a thousand runs on the same data share each name.
            rows = Pictures([SplitRow(*(sys.intern(p[key]) for key in keys)) for p in pictures])
        else:
            if not re.fullmatch(r"splits-\d+", pictures["columns"]):
                raise ValueError(f"no folder of columns: {pictures['columns']}")
            column = _columns(run / pictures["columns"], pictures["sha256"])
            rows = _Mapped(column, classes, column("order"))
            if len(rows) != pictures["number"]:
                raise ValueError(f"{pictures['columns']} has {len(rows)} pictures")
        return cls(str(content["fingerprint"]), classes, rows, content.get("unlabelled", ()))

    @classmethod
    def read(cls, run: str | Path) -> "Recorded":
        """Reads `splits.json` of a run folder, and what it names.

        Raises:
            CheckpointError: it is missing or unreadable, so this is not a run folder.
        """
        content = read_json(Path(run) / "splits.json")
        try:
            return cls.of(content, Path(run))
        except (KeyError, TypeError, ValueError) as error:
            raise CheckpointError(f"{run}: cannot be read as a run ({error})") from error


def _columns(folder: Path, sums: Mapping[str, str]) -> Callable[[str], Shaped[np.ndarray, "..."]]:
    """A function from the name of a column to its array, read and checked when first asked for."""
    found: dict[str, Shaped[np.ndarray, ...]] = {}

    def column(name: str) -> Shaped[np.ndarray, "..."]:
        path = folder / f"{name}.npy"
        if name not in found:
            try:
                found[name] = read_column(path, sums[name])
            except (OSError, ValueError, KeyError, struct.error) as error:
                reason = error.strerror if isinstance(error, OSError) else error
                raise CheckpointError(
                    f"{path}: missing or damaged ({reason}); start a new run, or restore the file"
                ) from error
        return found[name]

    return column
