"""The gradient of a batch as a sum over parts of it: for less memory, or for the CPU's caches."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Key, PyTree

from jaxgear.data.batches import Batch

# What XLA writes between two layers comes back from memory where a batch is large, and from the
# cache where parts of it go through the network one after the other. Measured best on the reference
# CNN among 2, 5, 10, 25 and 50 images of 128 px (results/README.md, "Parts of a batch").
PART_BYTES = 1 << 20  # of input, float32
MOST = 12  # parts: each is compiled


def in_turn(
    gradient: Callable[[Batch, Key[Array, ""]], PyTree],
    batch: Batch,
    size: int,
    key: Key[Array, ""],
) -> PyTree:
    """What `gradient` gives for each part of `size` pictures, summed, in the memory of one part.

    Part i is every n-th picture from the i-th on: where devices share a batch, each has an equal
    share of every part.
    """
    count = len(batch.label) // size
    rows = (batch.image, batch.label, batch.weight, batch.index)
    rows = jax.tree.map(lambda x: x.reshape(size, count, *x.shape[1:]).swapaxes(0, 1), rows)

    def one(number, rows):
        return gradient(Batch(*rows, batch.epoch), jax.random.fold_in(key, number))

    def add(total, part):
        return jax.tree.map(jnp.add, total, one(*part)), None

    parts = (jnp.arange(count), rows)
    shapes = jax.eval_shape(lambda parts: one(*jax.tree.map(lambda x: x[0], parts)), parts)
    zero = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
    return lax.scan(add, zero, parts)[0]


def in_cache(
    gradient: Callable[..., PyTree], rows: tuple[Array, ...], key: Key[Array, ""]
) -> PyTree:
    """`gradient(*rows, key)`, on a CPU as a sum over parts that fit in its caches.

    For networks that treat each picture by itself. `rows` are arrays of the batch, the pictures
    first. The loop is unrolled: XLA uses one core for most of what is inside a loop.
    """
    size = cache_size(rows[0])
    if size == len(rows[0]):
        return gradient(*rows, key)

    def on_cpu(rows, key):
        total = None
        for number, start in enumerate(range(0, len(rows[0]), size)):
            part = [x[start : start + size] for x in rows]
            one = gradient(*part, jax.random.fold_in(key, number))
            total = one if total is None else jax.tree.map(jnp.add, total, one)
        return total

    def elsewhere(rows, key):
        return gradient(*rows, key)

    return lax.platform_dependent(rows, key, cpu=on_cpu, default=elsewhere)


def cache_size(images: Array | jax.ShapeDtypeStruct) -> int:
    """How many pictures to take at a time: a divisor of the batch; all where none suits."""
    batch = images.shape[0]
    fits = max(1, PART_BYTES * batch // (images.size * 4))
    size = max(d for d in range(1, batch + 1) if batch % d == 0 and d <= max(fits, batch // MOST))
    return size if batch // size <= MOST else batch
