"""The folder that pictures are sorted into, on disk (prediction/sorting.py decides where they go).

Predictions are written down as they come (`note`), and where each picture goes before it is placed
(`place`), so a killed run is finished by the next one.
"""

import csv
import errno
import io
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from jaxgear.data import crops
from jaxgear.data.images import ImageError, descriptor
from jaxgear.data.labels.rows import append_rows, whole_rows
from jaxgear.errors import UsageError
from jaxgear.files import Lock, write_bytes, write_text
from jaxgear.text import text_of, to_csv

TABLE, UNREADABLE = "sorted.csv", "unreadable.csv"
HIDDEN = ".sorted"  # folder of what the next run needs


class Placed(NamedTuple):
    """A row of `sorted.csv`."""

    path: str  # absolute, where it came from
    sha256: str
    file: str  # POSIX, relative to the sorted folder; only its folder until it is placed
    name: str  # the class, or `none`
    probability: str
    score: str
    bytes: str
    modified: str  # nanoseconds since 1970

    @property
    def folder(self) -> str:
        """The name of the folder that it went to."""
        return self.file.partition("/")[0]


_HEADER = [{"name": "class"}.get(name, name) for name in Placed._fields]


class SortedFolder:
    """The folder `out`: rows of what was placed, and placing more.

    Attributes:
        rows: what was placed.
        noted: what an earlier run predicted and did not place.
        descriptors: of both, by sha256 (hex).
    """

    def __init__(self, out: Path, copy: bool):
        """Locks it, and finishes what a killed run began; `UsageError` as all its methods."""
        self.out, self._copy = out, copy
        self._state = out / HIDDEN
        self._notes = self._state / "predicted.csv"
        self._descriptors = self._state / f"descriptors-{descriptor.VERSION}"
        with self._named():
            self._state.mkdir(parents=True, exist_ok=True)
            self._lock = Lock(self._state / "lock")
            self.rows = _read_rows(out / TABLE)
            if unfinished := self.rows[self._placed() :]:
                for row in unfinished:
                    self._place(row)
                self._note_placed()
            self._taken = {row.file.casefold() for row in self.rows}
            self._known = {row.path: (row.bytes, row.modified) for row in self.rows}
            # By path: a picture whose descriptor was lost is predicted, and noted, again.
            noted = {row.path: row for row in _read_rows(self._notes) if self._is_left(row)}
            wanted = {row.sha256 for row in (*self.rows, *noted.values())}
            self.descriptors = self._read_descriptors(wanted)
        self.noted = [row for row in noted.values() if row.sha256 in self.descriptors]
        self._known |= {row.path: (row.bytes, row.modified) for row in self.noted}

    def release(self) -> None:
        """Releases the lock."""
        self._lock.release()

    def has(self, file: str) -> bool:
        """Whether a file was placed or noted, and has not changed since."""
        path = _absolute(file)
        return path in self._known and self._known[path] == _state_of(path)

    def can_note(self, file: str) -> bool:
        """Whether tables can name a file: its path is UTF-8."""
        return text_of(path := _absolute(file)) == path

    def _is_left(self, row: Placed) -> bool:
        """Whether a noted file is still unplaced, and unchanged on disk."""
        state = row.bytes, row.modified
        return self._known.get(row.path) != state == _state_of(row.path)

    def check(self, file: Path) -> None:
        """Raises UsageError if `file` cannot be placed here by a hard link, unless it is copied."""
        if self._copy:
            return
        probe = self._state / "probe"
        with self._named():
            probe.unlink(missing_ok=True)
            os.link(file, probe)
            probe.unlink()

    def row(
        self, file: str, sha256: str, folder: str, name: str, figures: tuple[float, float]
    ) -> Placed:
        """The row of a file that goes to `folder`.

        Args:
            name: its class, or `none`.
            figures: probability and score.
        """
        path = _absolute(file)
        cells = (f"{figure:.6f}" for figure in figures)
        return Placed(path, sha256, folder, name, *cells, *_state_of(path))

    def note(self, rows: Sequence[Placed], descriptors: Mapping[str, bytes]) -> None:
        """Writes rows that are placed later, and descriptors (by sha256, hex) down."""
        with self._named():
            with self._descriptors.open("ab") as file:
                for sha256, described in descriptors.items():
                    file.write(bytes.fromhex(sha256) + described)
            append_rows(self._notes, _HEADER, rows)

    def place(self, rows: Sequence[Placed]) -> None:
        """Places pictures that were noted, under names that are free, and writes down where."""
        with self._named():
            rows = [row._replace(file=self._free(row)) for row in rows]
            append_rows(self.out / TABLE, _HEADER, rows)
            self.rows += rows
            for row in rows:
                self._place(row)
            self._note_placed()
            self._notes.unlink(missing_ok=True)

    def _free(self, row: Placed) -> str:
        """A file name for a row that is free in its folder."""
        place = f"{row.file}/{crops.file_name(row.path)}"
        stem, suffix = os.path.splitext(place)  # noqa: PTH122
        number = 1
        while place.casefold() in self._taken or os.path.lexists(f"{self.out}/{place}"):
            more = "" if number == 1 else f"-{number}"
            place = f"{stem}-{row.sha256[:8]}{more}{suffix}"
            number += 1
        self._taken.add(place.casefold())
        return place

    def list_unreadable(self, reasons: Mapping[str, str]) -> None:
        """Writes `unreadable.csv`: these files, and those of earlier runs that are there still."""
        with self._named():
            path = self.out / UNREADABLE
            now = {_absolute(file): reason for file, reason in reasons.items()}
            sorted_now = {row.path for row in self.rows}
            for file, reason in _read_unreadable(path).items():
                if file not in sorted_now and os.path.lexists(file):
                    now.setdefault(file, reason)
            if now or path.exists():
                rows = [("path", "reason"), *((text_of(p), now[p]) for p in sorted(now))]
                write_text(path, to_csv(rows))

    def _place(self, row: Placed) -> None:
        """Links or copies a picture, or writes a crop. Does nothing if it is there already, or
        cannot be read any more.
        """
        target = f"{self.out}/{row.file}"
        photograph, box = crops.parted(row.path)
        if self._copy or box:
            if os.path.lexists(target) or not os.path.lexists(photograph):
                return
            try:
                data = crops.read_bytes(row.path, row.path)
            except ImageError:
                return
            os.makedirs(os.path.dirname(target), exist_ok=True)  # noqa: PTH103, PTH120
            write_bytes(Path(target), data)
            shutil.copystat(photograph, target)
            return
        with suppress(FileExistsError):
            try:
                os.link(row.path, target)
            except FileNotFoundError:
                if os.path.lexists(row.path):  # the class is new
                    os.makedirs(os.path.dirname(target), exist_ok=True)  # noqa: PTH103, PTH120
                    os.link(row.path, target)

    def _note_placed(self) -> None:
        write_text(self._state / "placed", str(len(self.rows)))

    def _placed(self) -> int:
        """The number of rows whose pictures are known to be placed."""
        with suppress(FileNotFoundError, ValueError):
            return int((self._state / "placed").read_text())
        return 0

    def _read_descriptors(self, wanted: set[str]) -> dict[str, bytes]:
        """Descriptors by sha256. Drops a last one that a kill cut off, so that more can follow."""
        if not self._descriptors.exists():
            return {}
        size = 32 + descriptor.BYTES
        data = self._descriptors.read_bytes()
        if torn := len(data) % size:
            os.truncate(self._descriptors, len(data) - torn)
        entries = (data[start : start + size] for start in range(0, len(data) - torn, size))
        found = {entry[:32].hex(): entry[32:] for entry in entries}
        return {sha256: found[sha256] for sha256 in wanted & found.keys()}

    @contextmanager
    def _named(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            reason = error.strerror or str(error)
            if error.errno in (errno.EXDEV, errno.EPERM, errno.ENOTSUP, errno.EMLINK):
                reason += "; where hard links are impossible, --copy copies the files"
            raise UsageError(f"--sort {self.out}: cannot be written ({reason})") from error


def _absolute(path: str) -> str:
    return os.path.abspath(path)  # noqa: PTH100 - called for each picture


def _state_of(path: str) -> tuple[str, str]:
    """Size and time of a file (of a crop: of its photograph), as text; empty if it is gone."""
    try:
        status = os.stat(crops.parted(path)[0])  # noqa: PTH116
    except OSError:
        return "", ""
    return str(status.st_size), str(status.st_mtime_ns)


def _read_rows(path: Path) -> list[Placed]:
    """The rows of `sorted.csv`; OSError if it is something else."""
    data = path.read_bytes() if path.exists() else b""
    text = whole_rows(data, len(_HEADER)).decode(errors="replace")
    header, *rows = list(csv.reader(io.StringIO(text, newline=""))) or [_HEADER]
    if header != _HEADER or any(len(row) != len(_HEADER) for row in rows):
        raise OSError(errno.EINVAL, f"{path.name} there is something else")
    return [Placed(*row) for row in rows]


def _read_unreadable(path: Path) -> dict[str, str]:
    if not path.exists():
        return {}
    rows = list(csv.reader(io.StringIO(path.read_text(errors="replace"), newline="")))
    return {row[0]: row[1] for row in rows[1:] if len(row) == 2}
