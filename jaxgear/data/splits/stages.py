"""Near-duplicates in three stages over files, so that no job needs the memory of the whole set.

    sign        a part: hashes and features of its images, and their LSH keys by range
    compare     a range of keys, of all parts: pairs of near-duplicates
    components  all ranges: the groups that the pairs make

The jobs of a stage are independent of each other, one for each part. The groups are those of
`near_duplicates.groups`, whatever the number of parts: images with equal keys meet in one job, in
the order of their hashes, so they are compared as there.
"""

import contextlib
import hashlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int, Shaped, UInt8, UInt64

from jaxgear.data.folder import as_strings, digests, sortable
from jaxgear.data.splits import near_duplicates
from jaxgear.data.splits.hashing import pairs_of_equal, shared
from jaxgear.data.splits.near_duplicates import (
    Features,
    Keys,
    Spread,
    blocks,
    connected,
    join_alike,
)
from jaxgear.files import replacing

BANDS = 96  # of `Keys`
_ENTRY = np.dtype([("key", "<u8"), ("next", "<u8"), ("row", "<u4")])
_FEATURES = (  # files of `Features`, with the type and shape of an image
    ("aspect", ("<f8", ())),
    ("edges", ("<u8", (2, 2, 8))),
    ("hashes", ("<u8", (4,))),
)
_MIX = np.uint64(0x9E3779B97F4A7C15)  # spreads keys over the parts


def sign(folder: Path, parts: int, descriptors: Mapping[str, bytes]) -> None:
    """Writes what the other stages need to know of the images of a part.

    It takes a kilobyte of memory an image of the part, and 2.2 on the disk.

    Args:
        parts: the number of all parts.
        descriptors: by the sha256 (hex) of each image.
    """
    sha256 = sorted(descriptors)
    read = list(map(near_duplicates.read, blocks([descriptors[s] for s in sha256])))
    with replacing(folder / "sha256") as file:
        file.write(bytes.fromhex("".join(sha256)))
    for number, (name, _) in enumerate(_FEATURES):
        with replacing(folder / name) as file:
            file.writelines(features.arrays[number].tobytes() for features, _ in read)
    bands = Keys.joined([keys for _, keys in read]).bands() if read else ()
    ends = np.zeros((parts, BANDS + 1), "<i8")  # of the entries of each band
    with contextlib.ExitStack() as stack:
        names = (folder / f"keys-{number}" for number in range(1, parts + 1))
        files = [stack.enter_context(replacing(name)) for name in names]
        for file, own in zip(files, ends, strict=True):
            file.write(own.tobytes())
        for number, (_, rows, keys, next_keys) in enumerate(bands):
            band = np.empty(len(rows), _ENTRY)
            band["key"], band["next"], band["row"] = keys, next_keys, rows
            part = _part_of(keys, parts)
            for file, own, here in zip(files, ends, range(parts), strict=True):
                entries = band[part == here]
                file.write(entries.tobytes())
                own[number + 1] = own[number] + len(entries)
        for file, own in zip(files, ends, strict=True):
            file.seek(0)
            file.write(own.tobytes())


def compare(
    folders: Sequence[Path], part: int, without: Iterable[str] = ()
) -> UInt8[np.ndarray, "P 2 32"]:
    """Pairs of near-duplicates, by their hashes, that share a key of range `part` (from 1).

    It takes the memory of the keys of one band in that range, and of the pairs.

    Args:
        folders: of all parts, signed.
        without: sha256 (hex) of images that do not count.
    """
    signed = _Signed(folders, part, without)
    found = _Joined()
    for band in range(BANDS):
        keys, next_keys, rows = signed.band(band)
        pairs = pairs_of_equal(keys, next_keys)
        same = signed.features.compare(3 * band // BANDS)
        join_alike(found, pairs, rows, same)
    return signed.sha256.take(found.pairs.reshape(-1), 0).reshape(-1, 2, 32)


def components(pairs: UInt8[np.ndarray, "P 2 32"]) -> dict[str, str]:
    """The smallest sha256 (hex) of the group of each image that has near-duplicates."""
    if not len(pairs):
        return {}
    nodes, place = np.unique(as_strings(pairs.reshape(-1, 32)), return_inverse=True)
    number = connected(place.reshape(-1, 2), len(nodes))
    _, first = np.unique(number, return_index=True)  # nodes are sorted, so the smallest
    names = list(digests(nodes.view(np.uint8).reshape(-1, 32)))
    return {name: names[first[own]] for name, own in zip(names, number.tolist(), strict=True)}


def hashes(folder: Path) -> Shaped[np.ndarray, " n"]:
    """The sha256 of each image of a signed part, as `folder.as_strings` has them."""
    return as_strings(_mapped(folder / "sha256", np.uint8, (32,)))


def digest(folders: Sequence[Path], without: Iterable[str] = ()) -> str:
    """A hash of the images that `compare` reads. Equal hashes mean equal pairs."""
    of = hashlib.sha256(repr(sorted(without)).encode())
    for folder in folders:
        with (folder / "sha256").open("rb") as file:
            of.update(hashlib.file_digest(file, "sha256").digest())
    return of.hexdigest()


class _Signed:
    """The images of all signed parts, and their keys in a range. A row is an image of a part."""

    def __init__(self, folders: Sequence[Path], part: int, without: Iterable[str]):
        self._keys = [_entries(folder / f"keys-{part}") for folder in folders]
        hashes = [_mapped(folder / "sha256", np.uint8, (32,)) for folder in folders]
        self._first, self.sha256 = np.cumsum([0, *map(len, hashes)]), Spread(hashes)
        self.features = Features(
            *(Spread([_mapped(own / name, *kind) for own in folders]) for name, kind in _FEATURES)
        )
        self._without = sortable(list(without))

    def band(
        self, band: int
    ) -> tuple[UInt64[np.ndarray, " n"], UInt64[np.ndarray, " n"], Int[np.ndarray, " n"]]:
        """The keys, next keys and rows of a band that share a key, in the order of the hashes."""
        own = [entries[ends[band] : ends[band + 1]] for ends, entries in self._keys]
        entries = np.concatenate(own)
        rows = entries["row"] + np.repeat(self._first[:-1], list(map(len, own)))
        keys, next_keys = entries["key"], entries["next"]
        few = shared(keys)
        names = as_strings(self.sha256.take(rows[few], 0))
        _, once = np.unique(names, return_index=True)  # sorted by hash, the first row of each
        once = once[~np.isin(names[once], self._without)]
        chosen = few[once]
        return keys[chosen], next_keys[chosen], rows[chosen]


class _Joined:
    """Groups that merge, of the rows that are in any pair; others take no memory."""

    def __init__(self):
        self.pairs = np.zeros((0, 2), np.int64)
        self._rows, self._group = np.zeros(0, np.int64), np.zeros(0, np.int64)

    def apart(self, pairs: Int[np.ndarray, "P 2"]) -> Int[np.ndarray, "Q 2"]:
        """The pairs whose rows are in different groups."""
        if not len(self._rows):
            return pairs
        place = np.searchsorted(self._rows, pairs).clip(max=len(self._rows) - 1)
        group = np.where(self._rows[place] == pairs, self._group[place], -1 - pairs)
        return pairs[group[:, 0] != group[:, 1]]

    def join(self, pairs: Int[np.ndarray, "P 2"]) -> None:
        """Merges the groups of each pair."""
        from scipy.sparse import coo_array, csgraph

        if not len(pairs):
            return
        self.pairs = np.concatenate([self.pairs, pairs])
        self._rows, place = np.unique(self.pairs, return_inverse=True)
        i, j = place.reshape(-1, 2).T
        size = (len(self._rows),) * 2
        # A forest of them has the same groups, and fewer pairs than rows.
        links = coo_array((np.ones(len(i)), (i, j)), shape=size)
        links = csgraph.minimum_spanning_tree(links).tocoo()
        self.pairs = self._rows[np.stack([links.row, links.col], axis=1)]
        _, self._group = csgraph.connected_components(links, directed=False)


def _part_of(keys: UInt64[np.ndarray, " n"], parts: int) -> UInt64[np.ndarray, " n"]:
    return ((keys * _MIX) >> np.uint64(32)) % np.uint64(parts)


def _entries(path: Path) -> tuple[Int[np.ndarray, " b"], Shaped[np.ndarray, " n"]]:
    """The ends of each band in the entries of a file, and the entries."""
    octets = np.memmap(path, np.uint8, "r")
    head = 8 * (BANDS + 1)
    return octets[:head].view("<i8"), np.asarray(octets[head:]).view(_ENTRY)


def _mapped(path: Path, dtype: Any, shape: tuple[int, ...]) -> Shaped[np.ndarray, "n ..."]:
    if not path.stat().st_size:
        return np.zeros((0, *shape), dtype)
    return np.asarray(np.memmap(path, dtype, "r")).reshape(-1, *shape)
