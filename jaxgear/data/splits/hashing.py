"""Locality-sensitive hashing: keys that similar images share, and pairs of rows with equal keys."""

import functools
from collections.abc import Iterator

import numpy as np
from jaxtyping import Bool, Int, UInt64

# Edges that agree by 0.88 share a band with probability 1 - 6e-7; edges that agree by 0.3, with
# 2e-3. Hashes that differ in 10 of 256 bits share a band with probability 1 - 2e-5.
_BANDS, _MINIMA, _LOOKED_AT = 32, 8, 64
_HASH_BANDS, _SAMPLE = 32, 32
_NEAR = 32  # rows with the same key that each row is paired with


def packed(bits: Bool[np.ndarray, "... E"]) -> UInt64[np.ndarray, "... W"]:
    """Bits in words of 64; zeros fill the last word."""
    octets = np.packbits(bits, axis=-1)
    count = octets.shape[-1]
    words = np.zeros((*octets.shape[:-1], -(-count // 8)), np.uint64)
    words.view(np.uint8)[..., :count] = octets
    return words


def minhash_keys(edges: Bool[np.ndarray, "n E"]) -> UInt64[np.ndarray, "n K"]:
    """MinHash keys, one per band.

    A minimum is the position of the first present edge in a random order of all edges. Two images
    have the same minimum with a probability equal to their Jaccard index. A key is `_MINIMA`
    minima, one byte each.
    """
    # 0 for a present edge, else 255. One row per edge, so that a random order gathers whole rows.
    missing = np.ascontiguousarray(edges.T).view(np.uint8) - np.uint8(1)
    position = np.arange(_LOOKED_AT, dtype=np.uint8)[:, None]
    minima = np.empty((_BANDS * _MINIMA, len(edges)), np.uint8)
    for minimum, first in zip(minima, _orders(len(missing)), strict=True):
        order = missing[first]
        order |= position  # leaves the positions of present edges; argmax takes four times as long
        np.minimum.reduce(order, axis=0, out=minimum)
    return np.ascontiguousarray(minima.T).view(np.uint64)


@functools.cache
def _orders(edges: int) -> Int[np.ndarray, "M L"]:
    """The first edges of a random order, for each minimum."""
    rng = np.random.default_rng(1)
    orders = [rng.permutation(edges)[:_LOOKED_AT] for _ in range(_BANDS * _MINIMA)]
    return np.stack(orders)


def sample_keys(bits: Bool[np.ndarray, "n E"]) -> UInt64[np.ndarray, "n K"]:
    """Random samples of `_SAMPLE` bits, one per band."""
    rng = np.random.default_rng(0)
    samples = np.stack([rng.permutation(bits.shape[1])[:_SAMPLE] for _ in range(_HASH_BANDS)])
    return packed(bits[:, samples])[..., 0]


def pairs_of_equal(
    keys: UInt64[np.ndarray, " n"], next_keys: UInt64[np.ndarray, " n"]
) -> Iterator[Int[np.ndarray, "P 2"]]:
    """Yields pairs of positions with equal keys: all pairs of up to `_NEAR` + 1 equal keys.

    Among more equal keys, sorted by `next_keys`, each is paired with the `_NEAR` after it and with
    the first. So the number of pairs grows linearly with the number of keys.
    """
    rows = shared(keys)
    order = rows[np.lexsort((next_keys[rows], keys[rows]))]
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


def shared(keys: UInt64[np.ndarray, " n"]) -> Int[np.ndarray, " m"]:
    """Positions, ascending, of the keys that occur more than once: few, so little is left to do."""
    order = np.argsort(keys)
    again = np.diff(keys[order]) == 0
    shared = np.zeros(len(keys), bool)
    shared[order[:-1][again]] = shared[order[1:][again]] = True
    return np.flatnonzero(shared)
