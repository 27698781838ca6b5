"""Finds near-duplicates: the same photograph re-encoded, resized, re-framed or recoloured.

The descriptor of an image is two tiny grey thumbnails: the whole frame, and the content inside its
near-white margins. Images are compared by the signs of the thumbnails' gradients, which survive
other encodings, sizes and colours. A difference hash alone (N. Krawetz, "Kind of Like That", 2013)
is not enough: on white backgrounds most of its bits are background, so images of different small
things differ in few bits. Agreement is therefore counted over cells with an edge in either image.

Candidates come from locality-sensitive hashing (hashing.py): MinHash of edges (A. Broder, "On the
resemblance and containment of documents", 1997) and samples of the difference hash's bits (P.
Indyk, R. Motwani, 1998). Among many images with the same key each is compared with only a few, so
time always grows linearly with the number of images.
"""

import os
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int, Shaped, UInt64

from jaxgear.data.images.descriptor import BYTES, COLUMNS, ROWS
from jaxgear.data.splits.hashing import minhash_keys, packed, pairs_of_equal, sample_keys

# Chosen by inspecting pairs on both sides of each limit, on 1,697 catalogue images. No pair across
# classes is accepted: the best agreement of such a pair is 0.72, between jackets of one cut.
AGREEMENT = 0.88  # of the edges of either view: the same photograph, or recoloured
EDGES = 40  # a view with fewer edges proves nothing: small things on white all look alike
HASH_BITS = 10  # of 256 in the whole frame may differ; then these weaker limits apply:
HASH_AGREEMENT = 0.6
HASH_EDGES = 100
ASPECT = 0.2  # largest difference of the contents' log aspect ratios

_EDGE = 5  # grey levels between neighbouring cells; smaller steps are encoder noise
_BLOCK = 4096  # images, or pairs of images, that are processed at a time
_Keys = UInt64[np.ndarray, " n"]
Same = Callable[[Int[np.ndarray, " P"], Int[np.ndarray, " P"]], Bool[np.ndarray, " P"]]


def groups(descriptors: Sequence[bytes]) -> Int[np.ndarray, " N"]:
    """A group number for each image: near-duplicates share it, also through other images.

    Candidates from hashing are compared exactly, unless they already share a group. Runs on one
    thread per core: NumPy releases the GIL.
    """
    joined = _Joined(len(descriptors))
    if len(descriptors) < 2:
        return joined.of
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        features, keys = zip(*pool.map(read, blocks(descriptors)), strict=True)
        features = Features.joined(features)

        def join(band: tuple) -> None:
            kind, rows, *keys = band
            join_alike(joined, pairs_of_equal(*keys), rows, features.compare(kind))

        list(pool.map(join, Keys.joined(keys).bands()))  # raises the error of a thread
    return joined.of


class _Joined:
    """Groups that merge. Safe for many threads."""

    def __init__(self, count: int):
        self.of = np.arange(count)  # group of each image; replaced, never changed in place
        self._lock = threading.Lock()

    def apart(self, pairs: Int[np.ndarray, "P 2"]) -> Int[np.ndarray, "Q 2"]:
        """The pairs whose images are in different groups."""
        of = self.of
        return pairs[of[pairs[:, 0]] != of[pairs[:, 1]]]

    def join(self, pairs: Int[np.ndarray, "P 2"]) -> None:
        """Merges the groups of each pair."""
        if len(pairs):
            with self._lock:
                self.of = connected(self.of[pairs], len(self.of))[self.of]


def connected(pairs: Int[np.ndarray, "P 2"], count: int) -> Int[np.ndarray, " N"]:
    """The number of the component of each of `count` nodes that pairs connect."""
    from scipy.sparse import coo_array, csgraph  # processes that only decode do without it

    links = coo_array((np.ones(len(pairs), bool), tuple(pairs.T)), shape=(count, count))
    return csgraph.connected_components(links, directed=False)[1]


def join_alike(
    joined: Any,
    candidates: Iterable[Int[np.ndarray, "P 2"]],
    rows: Int[np.ndarray, " n"],
    same: Same,
) -> None:
    """Merges the groups of near-duplicates among pairs of `rows`."""
    for pairs in candidates:
        found = [block[same(*block.T)] for block in blocks(joined.apart(rows[pairs]))]
        joined.join(np.concatenate([pairs[:0], *found]))


class Keys(NamedTuple):
    """The LSH keys of n images: of each view's edges, and of hashes."""

    keys: tuple[UInt64[np.ndarray, "n B"], ...]
    enough: tuple[Bool[np.ndarray, " n"], ...]  # has enough edges to match another image

    @classmethod
    def joined(cls, parts: Sequence["Keys"]) -> "Keys":
        """The keys of several blocks of images."""
        keys, enough = (zip(*own, strict=True) for own in zip(*parts, strict=True))
        return cls(tuple(map(np.concatenate, keys)), tuple(map(np.concatenate, enough)))

    def bands(self) -> Iterator[tuple[int, Int[np.ndarray, " n"], _Keys, _Keys]]:
        """Yields the kind of a band, its images (those with enough edges), their keys in it, and
        those in another one, to sort images with equal keys.
        """
        for kind, (keys, enough) in enumerate(zip(self.keys, self.enough, strict=True)):
            rows = np.flatnonzero(enough)
            for number, band in enumerate(keys.T):
                yield kind, rows, band[rows], keys[rows, number - 1]


class Spread:
    """Rows of several arrays, one after the other; `take` as of an array."""

    def __init__(self, arrays: Sequence[Shaped[np.ndarray, "..."]]):
        self._arrays, self._first = arrays, np.cumsum([0, *map(len, arrays)])

    def take(self, rows: Int[np.ndarray, " n"], axis: int) -> Shaped[np.ndarray, "n ..."]:
        if len(self._arrays) == 1:
            return self._arrays[0].take(rows, axis)
        taken = np.empty((len(rows), *self._arrays[0].shape[1:]), self._arrays[0].dtype)
        part = np.searchsorted(self._first, rows, "right") - 1
        for number in np.unique(part).tolist():
            own = np.flatnonzero(part == number)
            taken[own] = self._arrays[number][rows[own] - self._first[number]]
        return taken


class Features:
    """What is compared of n images, 300 bytes an image."""

    def __init__(
        self,
        aspect: Float[np.ndarray, " n"] | Spread,
        edges: UInt64[np.ndarray, "n V D W"] | Spread,
        hashes: UInt64[np.ndarray, "n H"] | Spread,
    ):
        """`aspect` is the logarithm of the content's aspect ratio; `edges` are of 2 views, rises
        and falls.
        """
        self._aspect, self._edges, self._hashes = self.arrays = aspect, edges, hashes

    @classmethod
    def joined(cls, parts: Sequence["Features"]) -> "Features":
        """The features of several blocks of images."""
        return cls(*map(np.concatenate, zip(*(part.arrays for part in parts), strict=True)))

    def enough(self) -> tuple[Bool[np.ndarray, " n"], ...]:
        """Of each kind of key, the images that have enough edges to match another."""
        whole, content = _count(self._edges).sum(axis=2).T
        return (
            whole >= AGREEMENT * EDGES,
            content >= AGREEMENT * EDGES,
            whole >= HASH_AGREEMENT * HASH_EDGES,
        )

    def compare(self, kind: int) -> Same:
        """The comparison of pairs of images that share a key of a kind."""
        return (self.same, self.same, self._same_hashed)[kind]

    def same(self, i: Int[np.ndarray, " P"], j: Int[np.ndarray, " P"]) -> Bool[np.ndarray, " P"]:
        """Whether images i and j are near-duplicates.

        Agreement is the Jaccard index: edges with the same sign in both images over edges in either
        image. Empty background does not count.
        """
        same = np.abs(self._aspect.take(i, 0) - self._aspect.take(j, 0)) <= ASPECT
        near = np.flatnonzero(same)  # about half of the pairs that share a key
        same[near] = self._agree(i[near], j[near])
        return same

    def _same_hashed(
        self, i: Int[np.ndarray, " P"], j: Int[np.ndarray, " P"]
    ) -> Bool[np.ndarray, " P"]:
        """`same`, tested only for pairs with similar hashes: 1 in 1,000 of the pairs that share a
        sample of bits.

        Other near-duplicates are found through their edge keys.
        """
        same = self._differ(i, j) <= HASH_BITS
        near = np.flatnonzero(same)
        same[near] = self.same(i[near], j[near])
        return same

    def _differ(self, i: Int[np.ndarray, " P"], j: Int[np.ndarray, " P"]) -> Int[np.ndarray, " P"]:
        """The number of bits in which the hashes differ."""
        return _count(self._hashes.take(i, 0) ^ self._hashes.take(j, 0))

    def _agree(self, i: Int[np.ndarray, " P"], j: Int[np.ndarray, " P"]) -> Bool[np.ndarray, " P"]:
        """`same` for pairs with similar aspect ratios."""
        a, b = self._edges.take(i, 0), self._edges.take(j, 0)  # quicker than [i]
        rises, falls = np.moveaxis(_count(a & b), 2, 0)
        both = rises + falls  # [P, 2 views]
        a |= b
        either = _count(a[:, :, 0] | a[:, :, 1])
        agreement = np.where(either >= EDGES, both / np.maximum(either, 1), 0)
        same = agreement.max(axis=1) >= AGREEMENT
        return same | (
            (self._differ(i, j) <= HASH_BITS)
            & (agreement[:, 0] >= HASH_AGREEMENT)
            & (either[:, 0] >= HASH_EDGES)
        )


def read(descriptors: Sequence[bytes]) -> tuple[Features, Keys]:
    """The features and keys of a block of images."""
    octets = np.frombuffer(b"".join(descriptors), np.uint8).reshape(len(descriptors), BYTES)
    size = np.ascontiguousarray(octets[:, :4]).view("<u2").astype(np.float64)
    views = octets[:, 4:].reshape(-1, 2, ROWS, COLUMNS).astype(np.int16)
    edges = _edges(views)
    bits = (np.diff(views[:, 0], axis=2) > 0).reshape(len(octets), -1)
    features = Features(np.log(size[:, 1] / size[:, 0]), packed(edges), packed(bits))
    by_edges = (minhash_keys(edges[:, view].reshape(len(octets), -1)) for view in range(2))
    return features, Keys((*by_edges, sample_keys(bits)), features.enough())


def blocks(rows: Any) -> Iterator[Any]:
    """Parts of a sequence or an array, small enough to stay in a CPU's cache."""
    return (rows[start : start + _BLOCK] for start in range(0, len(rows), _BLOCK))


def _count(words: UInt64[np.ndarray, "*n W"]) -> Int[np.ndarray, "*n"]:
    """The number of ones in the words of each row, at most 1024 words.

    Adds the columns: `sum` over so short an axis takes ten times as long.
    """
    ones = np.bitwise_count(words)
    total = ones[..., 0].astype(np.uint16)
    for column in range(1, ones.shape[-1]):
        total += ones[..., column]
    return total.astype(np.int64)


def _edges(views: Int[np.ndarray, "N 2 16 17"]) -> Bool[np.ndarray, "N 2 2 E"]:
    """Where grey rises and where it falls, rightwards and downwards, in each view."""
    steps = [np.diff(views, axis=axis).reshape(len(views), 2, -1) for axis in (3, 2)]
    step = np.concatenate(steps, axis=2)
    return np.stack([step > _EDGE, step < -_EDGE], axis=2)
