"""Sets of older versions: the table of each shard holds the columns and descriptors of its rows."""

import itertools
import re
import threading
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Int, Shaped, UInt64

from jaxgear.data.folder import group_number
from jaxgear.data.folder.names import ALL
from jaxgear.data.tfds.parts import DAMAGE, Part, damaged, unlike
from jaxgear.data.tfds.shards import table_of
from jaxgear.text import stable_key


class Filling:
    """The columns of a set of `count` rows, filled table by table. Safe for many threads."""

    def __init__(self, folder: Path, count: int, classes: int):
        self._folder, self._classes = folder, classes
        self._lock = threading.Lock()
        self._names: dict[str, int] = {}
        self._texts: dict[int, bytes] = {}  # by the first row of a table
        self._columns = {
            "starts": np.empty(count, np.int64),
            "sha256": np.empty((count, 32), np.uint8),
            "stored": np.empty((count, 32), np.uint8),
            "label": np.empty(count, np.int32),
            "height": np.empty(count, np.int32),
            "width": np.empty(count, np.int32),
            "split": np.empty(count, np.uint8),
            "group": np.empty(count, np.uint64),
        }

    def add(self, part: Part, arrays: dict[str, Shaped[np.ndarray, "..."]]) -> None:
        """Copies the arrays of a table; DataError if they are damaged."""
        try:
            text = arrays.pop("path").tobytes()
            text.decode()  # or a ValueError
            ends = np.append(np.flatnonzero(np.frombuffer(text, np.uint8) == 0), len(text))
            if len(ends) != len(part.rows):
                raise unlike(self._folder)
            if {len(array) for array in arrays.values()} != {len(part.rows)}:
                raise ValueError("its columns do not match")
            if arrays["label"].min() < 0 or arrays["label"].max() >= self._classes:
                raise ValueError("a label is not a class")
            arrays["starts"] = np.append(0, ends[:-1] + 1)  # in this text
            arrays["split"] = np.full(len(ends), ALL.index(part.split))
            arrays["group"] = self._group_numbers(arrays["group"])
            for name, column in self._columns.items():
                column[part.rows.start : part.rows.stop] = arrays[name]
            self._texts[part.rows.start] = text + b"\0"
        except DAMAGE as error:
            raise damaged(table_of(part.path), error) from None

    def columns(
        self, parts: Sequence[Part]
    ) -> tuple[dict[str, Shaped[np.ndarray, "..."]], list[str]]:
        """The finished columns, as files of newer versions have them, and the names of groups."""
        text = bytearray()
        for part in parts:
            self._columns["starts"][part.rows.start : part.rows.stop] += len(text)
            text += self._texts.pop(part.rows.start)
        columns = self._columns | {"text": np.frombuffer(text, np.uint8)}
        return columns | {"order": self._order(text)}, list(self._names)

    def _order(self, text: bytearray) -> Int[np.ndarray, " N"]:
        """The rows sorted by path."""
        paths = text.decode().split("\0")[:-1]
        key = paths.__getitem__ if text.isascii() else lambda row: stable_key(paths[row])
        order = sorted(range(len(paths)), key=key)
        if any(paths[a] == paths[b] for a, b in itertools.pairwise(order)):
            raise unlike(self._folder)
        return np.array(order)

    def _group_numbers(self, groups: Shaped[np.ndarray, " n"]) -> UInt64[np.ndarray, " n"]:
        text = groups.tobytes()
        if groups.itemsize == 12 and re.fullmatch(b"[0-9a-f]*", text):
            octets = np.zeros((len(groups), 8), np.uint8)
            octets[:, 2:] = np.frombuffer(bytes.fromhex(text.decode()), np.uint8).reshape(-1, 6)
            return octets.view(">u8")[:, 0].astype(np.uint64)
        with self._lock:
            numbers = [group_number(name.decode(), self._names) for name in groups.tolist()]
        return np.array(numbers, np.uint64)
