"""Max pooling with a gradient that is fast on CPUs, and the maximum of a whole map.

XLA's gradient of max pooling searches every window again. Here the forward pass stores the place of
the largest value, one byte per window. The gradient is a sum of shifted copies, one per place in a
window, which the compiler fuses into one pass over memory (results/README.md, "Convolution and
pooling on a CPU").
"""

import functools

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

Pair = tuple[int, int]


def max_pool(
    x: Float[Array, "B H W C"],
    window: Pair,
    strides: Pair,
    padding: tuple[Pair, Pair] = ((0, 0), (0, 0)),
) -> Float[Array, "B h w C"]:
    """Like `flax.linen.max_pool`, with the same arguments; no window may lie only in padding.

    Of equal values, the first in the window, row by row, gets the gradient, as in XLA.

    Raises:
        ValueError: the window does not fit, has more than 256 places, or a size or stride is below
            1.
    """
    if min(*window, *strides) < 1 or window[0] * window[1] > 256:
        raise ValueError(
            f"window {window}, strides {strides}: must be at least 1, with at most 256 places"
        )
    room = [length + sum(pad) for length, pad in zip(x.shape[1:3], padding, strict=True)]
    if window[0] > room[0] or window[1] > room[1]:
        raise ValueError(f"window {window}: larger than the map of {room[0]} x {room[1]}")
    return _max_pool(x, x.shape[1:3], tuple(window), tuple(strides), tuple(map(tuple, padding)))


@functools.partial(jax.custom_vjp, nondiff_argnums=(1, 2, 3, 4))
def _max_pool(x, size, window, strides, padding):
    return functools.reduce(jnp.maximum, _places(x, window, strides, padding))


def _forward(x, size, window, strides, padding):
    largest, *rest = _places(x, window, strides, padding)
    place = jnp.zeros(largest.shape, jnp.uint8)
    for number, value in enumerate(rest, 1):
        place = jnp.where(value > largest, jnp.uint8(number), place)
        largest = jnp.maximum(largest, value)
    return largest, place


def _backward(size, window, strides, padding, place, g):
    def spread(axis: int, offset: int) -> tuple[int, int, int]:
        before = offset - padding[axis][0]
        reach = (g.shape[1 + axis] - 1) * strides[axis] + 1
        return before, size[axis] - before - reach, strides[axis] - 1

    zero = jnp.zeros((), g.dtype)
    shifted = [
        lax.pad(
            jnp.where(place == number, g, zero),
            zero,
            ((0, 0, 0), spread(0, number // window[1]), spread(1, number % window[1]), (0, 0, 0)),
        )
        for number in range(window[0] * window[1])
    ]
    return (functools.reduce(jnp.add, shifted),)


_max_pool.defvjp(_forward, _backward)


def _places(x, window, strides, padding):
    """For each place in a window, its values in all windows: kh * kw arrays [B, h, w, C]."""
    if any(map(any, padding)):
        x = jnp.pad(x, ((0, 0), *padding, (0, 0)), constant_values=-jnp.inf)
    last = [
        (length - size) // stride * stride + 1
        for length, size, stride in zip(x.shape[1:3], window, strides, strict=True)
    ]
    return [
        x[:, i : i + last[0] : strides[0], j : j + last[1] : strides[1]]
        for i in range(window[0])
        for j in range(window[1])
    ]


@jax.custom_vjp
def global_max(x: Float[Array, "B H W C"]) -> Float[Array, "B C"]:
    """Like `x.max(axis=(1, 2))`; pixels that equal the maximum share its gradient, as in JAX.

    The gradient does not rely on such a pixel being found. XLA may compute a map twice and round it
    differently, so that no pixel equals the maximum; JAX then divides by a count of 0. Here the
    place of the maximum, found in one computation, always counts.
    """
    return x.max(axis=(1, 2))


def _global_forward(x):
    largest = global_max(x)
    return largest, (x, largest)


def _global_backward(residuals, g):
    x, largest = residuals
    places = jnp.arange(x.shape[1] * x.shape[2]).reshape(*x.shape[1:3], 1)
    hit = (x == largest[:, None, None]) | (places == _place(x)[:, None, None])
    hit = hit.astype(g.dtype)
    return ((g / hit.sum((1, 2)))[:, None, None] * hit,)


global_max.defvjp(_global_forward, _global_backward)


def _place(x):
    """The first place of the maximum of each map, [B, C]; a loop is faster on CPUs than argmax."""
    x = x.reshape(x.shape[0], -1, x.shape[-1])

    def step(place, best):
        largest, at = best
        value = lax.dynamic_index_in_dim(x, place, axis=1, keepdims=False)
        return jnp.maximum(largest, value), jnp.where(value > largest, place, at)

    start = (x[:, 0], jnp.zeros((x.shape[0], x.shape[-1]), int))
    return lax.fori_loop(1, x.shape[1], step, start)[1]
