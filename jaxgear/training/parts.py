"""The gradient of a batch as a sum over its parts, to save memory or to fit the CPU's caches."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Key, PyTree

from jaxgear.data.batches import Batch

# The activations of a large batch go through memory. Those of a small part stay in the cache. This
# size was the fastest for the reference CNN among 2, 5, 10, 25 and 50 images of 128 px
# (results/README.md, "Parts of a batch").
PART_BYTES = 1 << 20  # of input, float32
MOST = 12  # parts at most, because each is compiled


def in_turn(
    gradient: Callable[[Batch, Key[Array, ""]], PyTree],
    batch: Batch,
    size: int,
    key: Key[Array, ""],
) -> PyTree:
    """The sum of `gradient` over parts of `size` examples, in the memory of one part.

    Part i takes every n-th example from the i-th on. So if devices share a batch, each has an equal
    share of every part.
    """
    count = len(batch.label) // size
    rows = (batch.image, batch.label, batch.weight, batch.index)
    rows = jax.tree.map(lambda x: x.reshape(size, count, *x.shape[1:]).swapaxes(0, 1), rows)

    def of_part(number, rows):
        return gradient(Batch(*rows, batch.epoch), jax.random.fold_in(key, number))

    def add(total, part):
        return jax.tree.map(jnp.add, total, of_part(*part)), None

    parts = (jnp.arange(count), rows)
    shapes = jax.eval_shape(lambda parts: of_part(*jax.tree.map(lambda x: x[0], parts)), parts)
    zero = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
    return lax.scan(add, zero, parts)[0]


def mean(total: PyTree, count: int) -> PyTree:
    """The mean over `count` parts, given their sum. Integers, which are counters, stay integers."""
    return jax.tree.map(
        lambda x: x / count if jnp.issubdtype(x.dtype, jnp.inexact) else x // count, total
    )


def in_cache(
    gradient: Callable[..., PyTree], rows: tuple[Array, ...], key: Key[Array, ""]
) -> PyTree:
    """`gradient(*rows, key)`; on a CPU, the sum over parts that fit in its caches.

    For networks that treat each example by itself. `rows` are arrays of the batch, images first.
    The loop is unrolled, because XLA runs most operations inside a loop on one core.
    """
    size = cache_size(rows[0])
    if size == len(rows[0]):
        return gradient(*rows, key)

    def on_cpu(rows, key):
        total = None
        for number, start in enumerate(range(0, len(rows[0]), size)):
            part = [x[start : start + size] for x in rows]
            grads = gradient(*part, jax.random.fold_in(key, number))
            total = grads if total is None else jax.tree.map(jnp.add, total, grads)
        return total

    def elsewhere(rows, key):
        return gradient(*rows, key)

    return lax.platform_dependent(rows, key, cpu=on_cpu, default=elsewhere)


def cache_size(images: Array | jax.ShapeDtypeStruct) -> int:
    """Images per part: a divisor of the batch, or the whole batch if no divisor suits."""
    batch = images.shape[0]
    fits = max(1, PART_BYTES * batch // (images.size * 4))
    size = max(d for d in range(1, batch + 1) if batch % d == 0 and d <= max(fits, batch // MOST))
    return size if batch // size <= MOST else batch
