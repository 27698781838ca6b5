"""Which pictures look alike: the same photograph re-encoded, resized, re-framed or recoloured.

A picture is described by two tiny grey thumbnails, of the whole frame and of the content inside its
near-white margins, and compared by the signs of their gradients, which survive other encodings,
sizes and colours. A difference hash (N. Krawetz, "Kind of Like That", 2013) alone is not enough: on
white backgrounds most of its bits are background, so that pictures of different small things differ
in few bits. Agreement is therefore counted over the cells that hold an edge in either picture.

Candidates are found by locality-sensitive hashing: MinHash for edges (A. Broder, "On the
resemblance and containment of documents", 1997), samples of bits for the hash (P. Indyk, R.
Motwani, 1998). Of many that share a key each is compared with a few. So time grows with the number
of pictures and not with its square, whatever they are.
"""

import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int, UInt, UInt64

from jaxgear.data.images.descriptor import COLUMNS, ROWS

# Chosen on 1,697 catalogue pictures by looking at the pairs on both sides of each limit. No pair of
# different classes is accepted: their best agreement is 0.72, between jackets of one cut.
AGREEMENT = 0.88  # of edges, in either view: the same photograph, or the same recoloured
EDGES = 40  # with fewer, a view says nothing: small things on white all look alike
HASH_BITS = 10  # of 256 in the whole frame that may differ; then less agreement will do:
HASH_AGREEMENT = 0.6
HASH_EDGES = 100
ASPECT = 0.2  # largest difference of the contents' log aspect ratios

_EDGE = 5  # grey levels between neighbouring cells; less is noise of the encoder
_BLOCK = 4096  # pictures, or pairs of them, that are worked on at a time
# Views that agree by AGREEMENT share one of the bands with a probability of 1 - 6e-7, views that
# agree by 0.3 with one of 2e-3; hashes that differ in HASH_BITS, with one of 1 - 2e-5.
_BANDS, _MINIMA, _LOOKED_AT = 32, 8, 64
_HASH_BANDS, _SAMPLE = 32, 32
_NEAR = 32  # of the pictures that share a key, those that one is compared with
_Same = Callable[[Int[np.ndarray, " P"], Int[np.ndarray, " P"]], Bool[np.ndarray, " P"]]


def groups(descriptors: Sequence[bytes]) -> Int[np.ndarray, " N"]:
    """A number for each picture, from its descriptor: equal for those that look alike, directly or
    by others between them.

    What hashing brings up is compared exactly, unless it is in one group already. On as many
    threads as there are cores: NumPy lets go of the interpreter while it works.
    """
    joined = _Joined(len(descriptors))
    if len(descriptors) < 2:
        return joined.of
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        table = _Table(list(pool.map(_read, _blocks(descriptors))))
        for _ in pool.map(lambda band: _join_alike(joined, *band), table.bands()):
            pass  # asks for each result, which raises what went wrong
    return joined.of


class _Joined:
    """Groups that grow together. Safe for many threads."""

    def __init__(self, count: int):
        self.of = np.arange(count)  # a new array each time
        self._lock = threading.Lock()

    def apart(self, pairs: Int[np.ndarray, "P 2"]) -> Int[np.ndarray, "Q 2"]:
        """The pairs that are not in one group yet."""
        of = self.of
        return pairs[of[pairs[:, 0]] != of[pairs[:, 1]]]

    def join(self, pairs: Int[np.ndarray, "P 2"]) -> None:
        """Puts each pair in one group."""
        from scipy.sparse import (
            coo_array,
            csgraph,
        )  # imported when needed: not by processes that decode alone

        if not len(pairs):
            return
        with self._lock:
            i, j = self.of[pairs].T
            links = coo_array((np.ones(len(i), bool), (i, j)), shape=(len(self.of),) * 2)
            _, number = csgraph.connected_components(links, directed=False)
            self.of = number[self.of]


def _join_alike(
    joined: _Joined,
    keys: UInt64[np.ndarray, " n"],
    following: UInt64[np.ndarray, " n"],
    rows: Int[np.ndarray, " n"],
    same: _Same,
) -> None:
    """Joins those of `rows` that share a key and look alike."""
    for pairs in _pairs_of_equal(keys, following):
        for part in _blocks(joined.apart(rows[pairs])):
            joined.join(part[same(*part.T)])


class _Part(NamedTuple):
    """What is compared of n pictures, one kilobyte of each."""

    aspect: Float[np.ndarray, " n"]  # of the content, logarithm
    edges: UInt64[np.ndarray, "n V D W"]  # 2 views, rises and falls, words
    hashes: UInt64[np.ndarray, "n W"]
    keys: tuple[UInt64[np.ndarray, "n B"], ...]  # of edges in either view, and of hashes


def _read(descriptors: Sequence[bytes]) -> _Part:
    """What is compared of a block of pictures."""
    size = np.stack([np.frombuffer(descriptor, "<u2", 2) for descriptor in descriptors]).astype(
        np.float64
    )
    views = np.stack([np.frombuffer(descriptor, np.uint8, offset=4) for descriptor in descriptors])
    views = views.reshape(-1, 2, ROWS, COLUMNS).astype(np.int16)
    edges = _edges(views)
    bits = (np.diff(views[:, 0], axis=2) > 0).reshape(len(descriptors), -1)
    rng = np.random.default_rng(0)
    samples = np.stack([rng.permutation(bits.shape[1])[:_SAMPLE] for _ in range(_HASH_BANDS)])
    return _Part(
        aspect=np.log(size[:, 1] / size[:, 0]),
        edges=_packed(edges),
        hashes=_packed(bits),
        keys=(
            *(_minima(edges[:, view].reshape(len(descriptors), -1)) for view in range(2)),
            _packed(bits[:, samples])[..., 0],
        ),
    )


class _Table:
    """What is compared of all pictures."""

    def __init__(self, parts: Sequence[_Part]):
        self._aspect = np.concatenate([part.aspect for part in parts])
        self._edges = np.concatenate([part.edges for part in parts])
        self._hashes = np.concatenate([part.hashes for part in parts])
        self._keys = [np.concatenate(own) for own in zip(*(p.keys for p in parts), strict=True)]

    def bands(
        self,
    ) -> Iterator[
        tuple[UInt64[np.ndarray, " n"], UInt64[np.ndarray, " n"], Int[np.ndarray, " n"], _Same]
    ]:
        """Keys of which similar pictures share one, keys of another band to sort equal ones by, the
        pictures whose they are, and what compares pairs of them.

        Pictures with too few edges to be like any other are left out.
        """
        whole, content = np.bitwise_count(self._edges).sum(axis=(2, 3)).T
        for keys, enough, same in zip(
            self._keys,
            (
                whole >= AGREEMENT * EDGES,
                content >= AGREEMENT * EDGES,
                whole >= HASH_AGREEMENT * HASH_EDGES,
            ),
            (self.same, self.same, self._same_hashed),
            strict=True,
        ):
            rows = np.flatnonzero(enough)
            for number, band in enumerate(keys.T):
                yield band[rows], keys[rows, number - 1], rows, same

    def same(self, i: Int[np.ndarray, " P"], j: Int[np.ndarray, " P"]) -> Bool[np.ndarray, " P"]:
        """Whether pictures i and j look alike.

        Agreement is edges with the same sign in both over edges in either: the Jaccard index, in
        which the empty background does not count.
        """
        same = np.abs(self._aspect[i] - self._aspect[j]) <= ASPECT
        near = np.flatnonzero(same)  # about half of those that share a key
        same[near] = self._agree(i[near], j[near])
        return same

    def _same_hashed(
        self, i: Int[np.ndarray, " P"], j: Int[np.ndarray, " P"]
    ) -> Bool[np.ndarray, " P"]:
        """`same` where the hashes are: one pair in a thousand of those that share a sample of bits.

        What is alike without that shares a key of its edges.
        """
        same = self._differ(i, j) <= HASH_BITS
        near = np.flatnonzero(same)
        same[near] = self.same(i[near], j[near])
        return same

    def _differ(self, i: Int[np.ndarray, " P"], j: Int[np.ndarray, " P"]) -> UInt[np.ndarray, " P"]:
        """Bits in which the hashes differ."""
        return np.bitwise_count(self._hashes[i] ^ self._hashes[j]).sum(axis=1)

    def _agree(self, i: Int[np.ndarray, " P"], j: Int[np.ndarray, " P"]) -> Bool[np.ndarray, " P"]:
        """`same` where the aspect ratios are."""
        a, b = self._edges[i], self._edges[j]
        both = np.bitwise_count(a & b).sum(axis=(2, 3))  # [P, 2 views]
        a |= b
        either = np.bitwise_count(a[:, :, 0] | a[:, :, 1]).sum(axis=2)
        agreement = np.where(either >= EDGES, both / np.maximum(either, 1), 0)
        same = agreement.max(axis=1) >= AGREEMENT
        return same | (
            (self._differ(i, j) <= HASH_BITS)
            & (agreement[:, 0] >= HASH_AGREEMENT)
            & (either[:, 0] >= HASH_EDGES)
        )


def _blocks(rows: Any) -> Iterator[Any]:
    return (rows[start : start + _BLOCK] for start in range(0, len(rows), _BLOCK))


def _edges(views: Int[np.ndarray, "N 2 16 17"]) -> Bool[np.ndarray, "N 2 2 E"]:
    """Where grey rises and where it falls to the right and downwards, of each view."""
    steps = [np.diff(views, axis=axis).reshape(len(views), 2, -1) for axis in (3, 2)]
    step = np.concatenate(steps, axis=2)
    return np.stack([step > _EDGE, step < -_EDGE], axis=2)


def _packed(bits: Bool[np.ndarray, "... E"]) -> UInt64[np.ndarray, "... W"]:
    """Bits in words of 64, the last filled up with zeros."""
    packed = np.packbits(bits, axis=-1)
    count = packed.shape[-1]
    words = np.zeros((*packed.shape[:-1], -(-count // 8)), np.uint64)
    words.view(np.uint8)[..., :count] = packed
    return words


def _minima(edges: Bool[np.ndarray, "n E"]) -> UInt64[np.ndarray, "n K"]:
    """MinHash: how early, in each of many random orders of all edges, the first one there comes.

    Two pictures have the same minimum with a probability of their Jaccard index. `_MINIMA` of them,
    a byte each, are a key.
    """
    rng = np.random.default_rng(1)
    # 0 where there is one, else 255; a row of one edge each: a random order gathers whole rows.
    missing = np.ascontiguousarray(edges.T).view(np.uint8) - np.uint8(1)
    place = np.arange(_LOOKED_AT, dtype=np.uint8)[:, None]
    first = np.empty((_BANDS * _MINIMA, len(edges)), np.uint8)
    for minimum in first:
        looked_at = missing[rng.permutation(len(missing))[:_LOOKED_AT]]
        looked_at |= place  # the place of an edge that is there; argmax takes four times as long
        np.minimum.reduce(looked_at, axis=0, out=minimum)
    return np.ascontiguousarray(first.T).view(np.uint64)


def _pairs_of_equal(
    keys: UInt64[np.ndarray, " n"], following: UInt64[np.ndarray, " n"]
) -> Iterator[Int[np.ndarray, "P 2"]]:
    """Positions of equal keys: all pairs of up to `_NEAR` + 1 of them.

    Of more, each with the `_NEAR` after it, in the order of `following`, and with the first: their
    number grows with that of the keys and not with its square.
    """
    order = np.lexsort((following, keys))
    keys = keys[order]
    start, step = np.arange(len(keys)), 0
    while start.size and step < _NEAR:
        step += 1
        start = start[: np.searchsorted(start, len(keys) - step)]
        start = start[keys[start] == keys[start + step]]
        yield np.stack([order[start], order[start + step]], axis=1)
    if start.size:
        first = np.searchsorted(keys, keys)
        far = np.flatnonzero(np.arange(len(keys)) - first > _NEAR)
        yield np.stack([order[first[far]], order[far]], axis=1)
