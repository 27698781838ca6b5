"""What differs between a version of a prepared set and the records of the next one."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Int

from jaxgear.data.folder import Records, group_numbers, paths_of
from jaxgear.data.tfds.read import TfdsFolder
from jaxgear.data.tfds.shards import Shard
from jaxgear.text import stable_key


class Changes:
    """What differs between a version and the records of the next one."""

    def __init__(self, before: TfdsFolder, records: Records):
        self._before, old, new = before, before.records.table, records.table
        self._rows = _rows_before(before.records, records)  # of each record, or -1
        self._both = np.flatnonzero(self._rows >= 0)
        self.place = np.full(len(old.label), -1)  # of each row before
        self.place[self._rows[self._both]] = self._both
        pairs = records.rows[self._both], self._rows[self._both]
        names: dict[str, int] = {}
        groups = group_numbers(new.group, names), group_numbers(old.group, names)

        def equal(now: np.ndarray, then: np.ndarray) -> Bool[np.ndarray, " n"]:
            return now[pairs[0]] == then[pairs[1]]

        self._same_bytes = equal(new.sha256.values, old.sha256.values)
        self._same_split = equal(new.split.values, old.split.values)
        self._same = self._same_bytes & self._same_split & equal(*groups)
        for name in ("label", "height", "width"):
            self._same &= equal(getattr(new, name), getattr(old, name))

    def kept(self) -> list[Shard]:
        """The shards of the version before in which no record has changed."""
        same = np.zeros(len(self.place), bool)
        same[self._rows[self._both[self._same]]] = True
        return [shard for shard in self._before.shards if same[shard.records.rows].all()]

    def places_outside(self, shards: Sequence[Shard]) -> Int[np.ndarray, " n"]:
        """Places of the records that none of `shards` holds."""
        inside = np.zeros(len(self.place) + 1, bool)  # the last for records that are in none
        for shard in shards:
            inside[shard.records.rows] = True
        return np.flatnonzero(~inside[self._rows])

    def summary(self) -> str:
        """The changes in words."""
        counts = {
            "added": len(self._rows) - len(self._both),
            "gone": len(self._before.records) - len(self._both),
            "edited": np.count_nonzero(~self._same_bytes),
            "in another split": np.count_nonzero(self._same_bytes & ~self._same_split),
        }
        changed = ", ".join(f"{count} {kind}" for kind, count in counts.items() if count)
        return "; pictures " + changed


def _rows_before(before: Records, records: Records) -> Int[np.ndarray, " N"]:
    """The row of the table of `before` that has each record's path, or -1. Both are sorted."""
    rows = np.full(len(records), -1)
    old = zip(paths_of(before), before.rows.tolist(), strict=True)
    path, row = next(old, (None, -1))
    for place, own in enumerate(paths_of(records)):
        while path is not None and path != own and stable_key(path) < stable_key(own):
            path, row = next(old, (None, -1))
        if path == own:
            rows[place] = row
    return rows
