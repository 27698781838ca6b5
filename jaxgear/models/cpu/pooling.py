"""Max pooling with a gradient that is fast on CPUs.

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
