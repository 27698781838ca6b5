"""The decisions in a corrections file, by picture, and new ones without losing anybody's.

The version of a picture is the number of the row that holds for it, counted from 1; 0 means no row.
Rows are only added, so versions are the same in every process and after every start.
"""

import os
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from jaxgear.data.crops import Box
from jaxgear.data.labels import Correction, append, read_corrections, standing
from jaxgear.errors import UsageError


@dataclass(frozen=True, slots=True)
class Standing:
    """The decision that holds for a picture: its row number, and the row (0, None: no decision)."""

    version: int
    row: Correction | None


@dataclass(frozen=True, slots=True)
class Decision:
    """What a person wants of one picture, and the version that this person saw."""

    index: int
    version: int
    action: Literal["label", "remove", "undo"]
    label: str = ""  # a class; of "remove" the reason
    row: int = 0  # of "undo": the row to undo
    box: Box | None = None  # of "label": the box of the crop, as corrected


class Decisions:
    """A corrections file that this process and others add to. Callers hold a lock of their own."""

    def __init__(self, path: Path):
        """Reads the file, if it exists.

        Raises:
            DataError: not a corrections file, or a row that cannot be used.
            UsageError: it cannot be made there.
        """
        self.path = path
        self._known: tuple[int, int] | None = None  # size and time of the file as it was read
        self._clear()
        if not path.parent.is_dir():
            raise UsageError(f"--labels {path}: no folder {path.parent}")
        if not os.access(path if path.exists() else path.parent, os.W_OK):
            raise UsageError(f"--labels {path}: cannot be written")
        self.refresh()

    def _clear(self) -> None:
        self.rows: list[Correction] = []
        self._by_sha256: dict[str, list[int]] = defaultdict(list)
        self._by_path: dict[str, list[int]] = defaultdict(list)

    @property
    def _size(self) -> int:
        return 0 if self._known is None else self._known[0]

    def refresh(self) -> list[Correction] | None:
        """Reads the file again if it changed. Returns the rows that are new to us.

        None: the rows that we knew are not in it any more (somebody edited the file).
        """
        try:
            status = self.path.stat()
        except FileNotFoundError:
            found = None
        else:
            found = (status.st_size, status.st_mtime_ns)
        if found == self._known:
            return []
        before = self.rows
        rows = read_corrections(self.path) if found and found[0] else ()
        self._known = found
        self._clear()
        self._take(rows)
        return self.rows[len(before) :] if self.rows[: len(before)] == before else None

    def _take(self, rows: Sequence[Correction]) -> None:
        for number, row in enumerate(rows, len(self.rows) + 1):
            if row.sha256:
                self._by_sha256[row.sha256].append(number)
            if row.path:
                self._by_path[row.path].append(number)
        self.rows += rows

    def of(self, sha256: str, path: str, before: int | None = None) -> Standing:
        """What holds for a picture; with `before`, as it was before that row.

        A picture whose hash is not known yet ("") is found by its path.
        """
        numbers = self._by_path.get(path, [])
        if sha256:  # rows about another file that had this path do not count
            numbers = [number for number in numbers if not self.rows[number - 1].sha256]
            numbers += self._by_sha256.get(sha256, ())
        holds = Standing(0, None)
        for number in sorted(numbers):
            row = self.rows[number - 1]
            if before is not None and number >= before:
                break
            if holds.row is None or not row.by_program or holds.row.by_program:
                holds = Standing(number, row)
        return holds

    def add(self, rows: Sequence[Correction]) -> bool:
        """Adds rows and returns once they are on disk; False if the file has changed meanwhile.

        Raises:
            UsageError: the file cannot be written.
        """
        status = append(self.path, rows, at=self._size)
        if status is None:
            return False
        self._known = (status.st_size, status.st_mtime_ns)
        self._take(rows)
        return True

    def table(self) -> list[Correction]:
        """The decision that holds for each picture, in the order of the last rows."""
        return standing(self.rows)
