"""Gradients of a convolution that are fast on CPUs, and pieces that the convolution shares."""

import math

import jax
import jax.numpy as jnp
from jax import lax

LAYOUT = ("NHWC", "HWIO", "NHWC")
NO_PADS = ((0, 0), (0, 0))
# Bytes of the gathered columns of one block, for all cores together. 3 and 9 MiB are as fast
# (results/README.md, "Kernel gradients on small maps").
BLOCK_BYTES = 5 << 20


def xla(x, kernel, strides, pads, precision):
    """XLA's own convolution."""
    return lax.conv_general_dilated(
        x, kernel, strides, pads, dimension_numbers=LAYOUT, precision=precision
    )


def pointwise(shape, pads) -> bool:
    """Whether the window of a kernel is 1 x 1, without pads."""
    return shape[:2] == (1, 1) and pads == NO_PADS


def small(y, shape) -> bool:
    """Whether the map has fewer numbers than the kernel; then blocks of images do not help."""
    return math.prod(shape) > y.size


def pad(x, rows, columns):
    """Pads rows and columns with zeros; a negative pad crops."""
    return lax.pad(x, jnp.zeros((), x.dtype), ((0, 0, 0), (*rows, 0), (*columns, 0), (0, 0, 0)))


def input_gradient(g, kernel, shape, strides, pads, precision):
    """The input gradient of a small map with many channels, [N, H, W, Cin].

    XLA convolves with a flipped copy of the kernel, and makes that copy slowly. Here it is one
    product with the kernel as it is; then the parts for each tap are shifted and summed.
    """
    kh, kw, cin, cout = kernel.shape
    dimensions = (((3,), (1,)), ((), ()))
    taps = lax.dot_general(g, kernel.reshape(-1, cout), dimensions, precision=precision)
    taps = taps.reshape(*g.shape[:3], kh, kw, cin)
    zero = jnp.zeros((), taps.dtype)

    def spread(axis, tap):
        before = tap - pads[axis][0]
        reach = (g.shape[1 + axis] - 1) * strides[axis] + 1
        return before, shape[1 + axis] - before - reach, strides[axis] - 1

    return sum(
        lax.pad(taps[:, :, :, i, j], zero, ((0, 0, 0), spread(0, i), spread(1, j), (0, 0, 0)))
        for i in range(kh)
        for j in range(kw)
    )


def kernel_gradient(x, g, shape, strides, pads, precision):
    """The gradient of the kernel, [kh, kw, Cin, Cout]."""
    if pointwise(shape, pads):
        return _product(x[:, :: strides[0], :: strides[1]], g, precision)[None, None]
    if small(g, shape):
        kernel = jax.ShapeDtypeStruct(shape, x.dtype)
        transposed = jax.linear_transpose(lambda k: xla(x, k, strides, pads, precision), kernel)
        return transposed(g)[0]
    return _by_blocks(x, g, shape[:2], strides, pads, precision)


def _product(x, g, precision):
    """Sum over all pixels of x [..., Cin] times g [..., Cout]: [Cin, Cout]."""
    x, g = (a.reshape(-1, a.shape[-1]) for a in (x, g))
    if x.shape[1] <= g.shape[1]:
        return _over_rows(x, g, precision)
    # Without the barrier the compiler would undo the swap of the operands.
    return lax.optimization_barrier(_over_rows(g, x, precision)).T


def _over_rows(left, right, precision):
    """left [P, A], right [P, B] -> [A, B]. It transposes `left`, so a narrow `left` is faster."""
    return lax.dot_general(left, right, (((0,), (0,)), ((), ())), precision=precision)


def _by_blocks(x, g, window, strides, pads, precision):
    """The gradient as a sum of matrix products, one per block of images.

    The rows of both operands are pixels P. There are two ways to lay out the taps of the window:
    all of them in the columns of `x`, [P, kh * kw * Cin], with `g` as it is; or only one kernel row
    in `x`, [P, kw * Cin], and `g` shifted by each kernel row, [P, kh * Cout]. The second way also
    multiplies rows of zeros, so it is used only if it copies much less.
    """
    (kh, kw), (sh, sw) = window, strides
    n, _, _, cin = x.shape
    _, h, w, cout = g.shape
    # Crop rows and columns past the last window.
    height, width = (h - 1) * sh + kh, (w - 1) * sw + kw
    rows, columns = (
        (before, needed - actual - before)
        for (before, _), needed, actual in zip(pads, (height, width), x.shape[1:3], strict=True)
    )
    all_taps, row_taps = h * kh * kw * cin, height * (kw * cin + kh * cout)  # numbers copied
    by_rows = sh == 1 and row_taps < 0.75 * all_taps
    size = _block_size(n, (row_taps if by_rows else all_taps) * w * x.dtype.itemsize)

    def add_block(total, block):
        x, g = block
        x = pad(x, rows, columns)
        across = [x[:, :, j : j + (w - 1) * sw + 1 : sw] for j in range(kw)]
        if by_rows:
            taps = across
            g = jnp.concatenate([pad(g, (i, kh - 1 - i), (0, 0)) for i in range(kh)], axis=-1)
        else:
            down = [slice(i, i + (h - 1) * sh + 1, sh) for i in range(kh)]
            taps = [tap[:, rows] for rows in down for tap in across]
        x = jnp.concatenate(taps, axis=-1)
        x, g = (a.reshape(-1, a.shape[-1]) for a in (x, g))
        return total + _over_rows(g, x, precision), None

    shape = (kh * cout, kw * cin) if by_rows else (cout, kh * kw * cin)
    zeros = jnp.zeros(shape, jnp.result_type(x, g))
    blocks = [a.reshape(n // size, size, *a.shape[1:]) for a in (x, g)]
    total, _ = lax.scan(add_block, zeros, blocks)
    if by_rows:
        return total.reshape(kh, cout, kw, cin).transpose(0, 2, 3, 1)
    return total.reshape(cout, kh, kw, cin).transpose(1, 2, 3, 0)


def _block_size(n: int, bytes_each: int) -> int:
    """The largest divisor of `n` images whose columns fit in `BLOCK_BYTES`, or 2 (1 if n is odd).

    The cores share the copying of a block by images, so a block of one image uses one core.
    """
    limit = max(2, BLOCK_BYTES // bytes_each)
    return max(d for d in range(1, n + 1) if n % d == 0 and d <= limit)
