"""The images that a set can store, as columns: in staged files, or in the version before.

An image takes 88 bytes of memory. Its descriptor and the bytes to store stay on the disk.
"""

import hashlib
import os
import struct
from array import array
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Int, Shaped

from jaxgear.data.folder import Candidate, Column, Folder, Records, Table, narrow, rows_of_keys
from jaxgear.data.folder.names import OWN
from jaxgear.data.images.descriptor import BYTES
from jaxgear.data.prepare.decoding.workshop import Staged
from jaxgear.errors import DataError

_ROW = np.dtype(
    [
        ("sha256", "S32"),  # of the source file
        ("stored", "V32"),  # sha256 of the bytes to store
        ("height", "<i4"),  # of the source image
        ("width", "<i4"),
        ("length", "<i4"),  # of the bytes to store, about
        ("file", "<i4"),  # place in a list of staged files; _BEFORE: in the version before
        ("at", "<i8"),  # where the bytes start in the file, or the row of the version
    ]
)
_PACKED = struct.Struct("<32s32siiiiq")
_BEFORE = -1


def blank(count: int) -> Shaped[np.ndarray, " n"]:
    """Rows for the images of a version, in table order. Only `file` and `at` are set."""
    rows = np.zeros(count, _ROW)
    rows["file"], rows["at"] = _BEFORE, np.arange(count)
    return rows


class Images:
    """Images by the sha256 of their source files; of equal ones, the last counts."""

    def __init__(self):
        self._rows, self._before = bytearray(), None
        self._paths: list[Path] = []  # of staged files
        self._numbers: dict[Path, int] = {}  # their places in `_paths`

    def __len__(self) -> int:
        return len(self._rows) // _ROW.itemsize

    def add(self, entry: Staged) -> None:
        """Adds an image that was staged. `columns` must not be in use."""
        if (file := self._numbers.setdefault(entry.file, len(self._paths))) == len(self._paths):
            self._paths.append(entry.file)
        hashes = bytes.fromhex(entry.sha256), bytes.fromhex(entry.stored)
        place = entry.height, entry.width, entry.length, file, entry.offset
        self._rows += _PACKED.pack(*hashes, *place)

    def add_version(self, before: Folder, rows: Shaped[np.ndarray, " n"]) -> None:
        """Adds the images of a prepared set, `rows` as of its table (`blank`)."""
        self._before = before
        self._rows += rows.tobytes()

    @property
    def columns(self) -> Shaped[np.ndarray, " n"]:
        """The fields of all images."""
        return np.frombuffer(self._rows, _ROW)

    def sha256(self) -> Shaped[np.ndarray, " m"]:
        """The different hashes, ascending (`sortable`)."""
        return np.unique(self.columns["sha256"])

    def find(self, sha256: Shaped[np.ndarray, " n"]) -> Int[np.ndarray, " n"]:
        """The row of each hash (`sortable`), or -1."""
        return rows_of_keys(self.columns["sha256"], sha256)

    def records(
        self,
        candidates: Sequence[Candidate],
        classes: Sequence[str],
        rows: Int[np.ndarray, " N"],
    ) -> Records:
        """Records of the candidates, sorted by path; `rows` has the image of each (-1: refused)."""
        kept = np.flatnonzero(rows >= 0)
        rows, text, starts = rows[kept], bytearray(), array("Q")
        labels, splits = array("i"), bytearray()
        label_of = {name: label for label, name in enumerate(classes)}
        for candidate in map(candidates.__getitem__, kept.tolist()):
            starts.append(len(text))
            text += candidate.path.encode() + b"\0"
            labels.append(label_of[candidate.name])
            splits.append(OWN.index(candidate.split or ""))
        columns = self.columns
        table = Table(
            text=np.frombuffer(text, np.uint8),
            starts=narrow(np.frombuffer(starts, np.uint64)),
            sha256=Column(columns["sha256"][rows].view("V32"), bytes.hex),
            label=np.frombuffer(labels, np.int32),
            split=Column(np.frombuffer(splits, np.uint8), OWN.__getitem__),
            height=columns["height"][rows],
            width=columns["width"][rows],
            group=None,
            describe=lambda row: self.descriptor(rows.item(row)),
        )
        return Records(table, np.arange(len(rows)))

    def take(self, rows: Int[np.ndarray, " n"]) -> "Images":
        """Some of the images. Another process can read them unless the version before has them."""
        taken = Images()
        taken._rows += self.columns[rows].tobytes()
        taken._paths, taken._before = self._paths, self._before
        return taken

    def read(self, row: int) -> tuple[bytes, bytes]:
        """The descriptor of an image and the bytes to store, which are checked."""
        _, stored, _, _, length, number, at = self.columns.item(row)
        if number == _BEFORE:
            table = self._before.records.table
            return table.describe(at), self._before.read(table.record(at))
        file = self._paths[number]
        data = _part_of(file, at - BYTES, BYTES + length)
        descriptor, data = data[:BYTES], data[BYTES:]
        if hashlib.sha256(data).digest() != stored:
            raise _damaged(file)
        return descriptor, data

    def descriptor(self, row: int) -> bytes:
        """The descriptor of an image."""
        *_, number, at = self.columns.item(row)
        if number == _BEFORE:
            return self._before.records.table.describe(at)
        return _part_of(self._paths[number], at - BYTES, BYTES)


def _part_of(file: Path, offset: int, length: int) -> bytes:
    """A part of a file; takes half the time of a file object."""
    descriptor = os.open(file, os.O_RDONLY | getattr(os, "O_BINARY", 0))
    try:
        os.lseek(descriptor, offset, os.SEEK_SET)
        data = os.read(descriptor, length)
    finally:
        os.close(descriptor)
    if len(data) < length:
        raise _damaged(file)
    return data


def _damaged(file: Path) -> DataError:
    return DataError(f"{file}: damaged; remove {file.parent} and start again")
