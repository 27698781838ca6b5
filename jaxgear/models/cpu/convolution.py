"""A convolution that is fast on CPUs, and its gradients too.

`conv_general_dilated` takes the place of `jax.lax.conv_general_dilated` in Flax:

    nn.Conv(24, (3, 3), conv_general_dilated=convolution.conv_general_dilated)

On a CPU, XLA computes the gradient of the weights as a convolution with an enormous window, for
large maps far below what the cores can do; there it is a sum of matrix products over blocks of
pictures that fit in the cache (im2col, Chellapilla et al. 2006, applied to the gradient). Pictures
of few channels are folded first, so that a product is not as thin as three channels, and 1x1
windows are matrix products both ways. The gradient of a small map under many channels is one
product with the kernel as it lies. All else is XLA's own, which is near the peak.
On every other platform, and for the shapes this cannot serve (groups, dilation,
other layouts), all is XLA's.
"""

import functools
import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax import lax

LAYOUT = ("NHWC", "HWIO", "NHWC")
NO_PADS = ((0, 0), (0, 0))
# Pictures of at most THIN channels have FOLD neighbouring pixels folded into channels: more work
# by a third for a 3x3 window, in products of twice the width both ways.
THIN, FOLD = 4, 2
# Bytes of the gathered columns of one block, for the cores together; 3 and 9 MiB are as quick
# (results/README.md, "Kernel gradients on small maps").
BLOCK_BYTES = 5 << 20


def conv_general_dilated(
    lhs: jax.Array,  # [N, H, W, Cin]
    rhs: jax.Array,  # [kh, kw, Cin, Cout]
    window_strides: Sequence[int],
    padding: str | Sequence[tuple[int, int]],
    lhs_dilation: Sequence[int] | None = None,
    rhs_dilation: Sequence[int] | None = None,
    dimension_numbers: lax.ConvDimensionNumbers | tuple[str, str, str] | None = None,
    feature_group_count: int = 1,
    precision: lax.PrecisionLike = None,
) -> jax.Array:  # [N, h, w, Cout]
    """`jax.lax.conv_general_dilated`, faster where that is possible.

    Raises:
        ValueError: a stride below 1 (by which JAX would divide).
    """
    if min(window_strides) < 1:
        raise ValueError(f"strides {tuple(window_strides)}: must be at least 1")
    numbers = lax.conv_dimension_numbers(lhs.shape, rhs.shape, dimension_numbers)
    plain = (
        lhs.ndim == 4
        and numbers == lax.conv_dimension_numbers(lhs.shape, rhs.shape, LAYOUT)
        and feature_group_count == 1
        and set(lhs_dilation or (1,)) == set(rhs_dilation or (1,)) == {1}
    )
    if not plain:
        return lax.conv_general_dilated(
            lhs,
            rhs,
            window_strides,
            padding,
            lhs_dilation,
            rhs_dilation,
            numbers,
            feature_group_count,
            precision=precision,
        )
    strides = tuple(window_strides)
    if isinstance(padding, str):
        padding = lax.padtype_to_pads(lhs.shape[1:3], rhs.shape[:2], strides, padding)
    return _convolve(lhs, rhs, strides, tuple(map(tuple, padding)), precision)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3, 4))
def _convolve(x, kernel, strides, pads, precision):
    xla, cpu = (
        functools.partial(way, strides=strides, pads=pads, precision=precision)
        for way in (_xla, _cpu)
    )
    return lax.platform_dependent(x, kernel, cpu=cpu, default=xla)


def _forward(x, kernel, strides, pads, precision):
    return _convolve(x, kernel, strides, pads, precision), (x, kernel)


def _backward(strides, pads, precision, residuals, g):
    x, kernel = residuals
    options = {"strides": strides, "pads": pads, "precision": precision}

    def on_cpu(x, kernel, g):
        if _small(g, kernel.shape):
            dx = _input_gradient(g, kernel, x.shape, **options)
        else:
            (dx,) = jax.linear_transpose(lambda x: _cpu(x, kernel, **options), x)(g)
        return dx, _kernel_gradient(x, g, kernel.shape, **options)

    def elsewhere(x, kernel, g):
        (dx,) = jax.linear_transpose(lambda x: _xla(x, kernel, **options), x)(g)
        (dkernel,) = jax.linear_transpose(lambda kernel: _xla(x, kernel, **options), kernel)(g)
        return dx, dkernel

    return lax.platform_dependent(x, kernel, g, cpu=on_cpu, default=elsewhere)


_convolve.defvjp(_forward, _backward)


def _xla(x, kernel, strides, pads, precision):
    return lax.conv_general_dilated(
        x, kernel, strides, pads, dimension_numbers=LAYOUT, precision=precision
    )


def _cpu(x, kernel, strides, pads, precision):
    if _pointwise(kernel.shape, pads):
        x = x[:, :: strides[0], :: strides[1]]
        return lax.dot_general(x, kernel[0, 0], (((3,), (0,)), ((), ())), precision=precision)
    if _thin(x, kernel.shape, strides):
        n, height, width, _ = x.shape
        h = height + sum(pads[0]) - kernel.shape[0] + 1
        w = width + sum(pads[1]) - kernel.shape[1] + 1
        y = _xla(_fold(x, kernel.shape, pads), _fold_kernel(kernel), (1, 1), NO_PADS, precision)
        # [N, h, ceil(w / FOLD), FOLD * Cout]: pixels lie side by side, as they should.
        return y.reshape(n, h, -1, kernel.shape[3])[:, :, :w]
    return _xla(x, kernel, strides, pads, precision)


def _pointwise(shape, pads) -> bool:
    return shape[:2] == (1, 1) and pads == NO_PADS


def _thin(x, shape, strides) -> bool:
    """Few input channels, in a window over more than one of them: what folding helps with."""
    return shape[2] <= THIN and shape[1] > 1 and strides == (1, 1)


def _fold(x, shape, pads):
    """Padded pictures with `FOLD` neighbours of a row as channels: [N, H', W' / FOLD, FOLD * Cin].

    A convolution by `_fold_kernel` over them gives as many neighbours of the output at once.
    """
    _, kw, cin, _ = shape
    n, _, width, _ = x.shape
    w = width + sum(pads[1]) - kw + 1
    folds = -(-w // FOLD) + _folds(kw) - 1
    x = _pad(x, pads[0], (pads[1][0], folds * FOLD - width - pads[1][0]))
    return x.reshape(n, -1, folds, FOLD * cin)


def _fold_kernel(kernel):
    """[kh, kw, Cin, Cout] -> [kh, folds, FOLD * Cin, FOLD * Cout]: the kernel at each offset."""
    kh, kw, cin, cout = kernel.shape
    rest = _folds(kw) * FOLD - kw
    at = [jnp.pad(kernel, ((0, 0), (i, rest - i), (0, 0), (0, 0))) for i in range(FOLD)]
    return jnp.stack(at, axis=3).reshape(kh, _folds(kw), FOLD * cin, FOLD * cout)


def _folds(kw: int) -> int:
    """Columns of a folded picture that the windows of `FOLD` neighbours span."""
    return -(-(FOLD + kw - 1) // FOLD)


def _small(y, shape) -> bool:
    """A map of fewer numbers than the kernel has: what blocks of pictures do not help with."""
    return math.prod(shape) > y.size


def _pad(x, rows, columns):
    """A negative pad crops."""
    return lax.pad(x, jnp.zeros((), x.dtype), ((0, 0, 0), (*rows, 0), (*columns, 0), (0, 0, 0)))


def _input_gradient(g, kernel, shape, strides, pads, precision):
    """Gradient of a small map under many channels, [N, H, W, Cin].

    XLA's is a convolution with the kernel turned around, which it copies for that, and slowly so.
    Here it is one product with the kernel as it is, whose parts are laid over each other.
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


def _kernel_gradient(x, g, shape, strides, pads, precision):
    """Gradient of the kernel, [kh, kw, Cin, Cout]."""
    if _pointwise(shape, pads):
        return _product(x[:, :: strides[0], :: strides[1]], g, precision)[None, None]
    if _small(g, shape):
        kernel = jax.ShapeDtypeStruct(shape, x.dtype)
        transposed = jax.linear_transpose(lambda k: _xla(x, k, strides, pads, precision), kernel)
        return transposed(g)[0]
    return _by_blocks(x, g, shape[:2], strides, pads, precision)


def _product(x, g, precision):
    """Sum over all pixels of x [..., Cin] times g [..., Cout]: [Cin, Cout]."""
    x, g = (a.reshape(-1, a.shape[-1]) for a in (x, g))
    if x.shape[1] <= g.shape[1]:
        return _over_rows(x, g, precision)
    # The compiler would turn a product that is transposed at once back again.
    return lax.optimization_barrier(_over_rows(g, x, precision)).T


def _over_rows(left, right, precision):
    """left [P, A], right [P, B] -> [A, B]: quicker the narrower `left` is, which is turned."""
    return lax.dot_general(left, right, (((0,), (0,)), ((), ())), precision=precision)


def _by_blocks(x, g, window, strides, pads, precision):
    """The gradient as one matrix product for each block of pictures, summed.

    The rows of both operands are pixels. Either all taps of the window lie side by side in the
    columns of `x`, [P, kh * kw * Cin], against `g` as it is; or those of one kernel row do,
    [P, kw * Cin], and `g`, moved down by each row of the kernel, lies side by side as well,
    [P, kh * Cout]: where that copies much less, as it multiplies rows that count for nothing.
    """
    (kh, kw), (sh, sw) = window, strides
    n, _, _, cin = x.shape
    _, h, w, cout = g.shape
    # Rows and columns past the last window are cropped.
    height, width = (h - 1) * sh + kh, (w - 1) * sw + kw
    rows, columns = (
        (before, length - size - before)
        for (before, _), length, size in zip(pads, (height, width), x.shape[1:3], strict=True)
    )
    copied, split = h * kh * kw * cin, height * (kw * cin + kh * cout)
    both = sh == 1 and split < 0.75 * copied
    block = _block_size(n, (split if both else copied) * w * x.dtype.itemsize)

    def add_block(total, block_of):
        x, g = block_of
        x = _pad(x, rows, columns)
        across = [x[:, :, j : j + (w - 1) * sw + 1 : sw] for j in range(kw)]
        if both:
            taps = across
            g = jnp.concatenate([_pad(g, (i, kh - 1 - i), (0, 0)) for i in range(kh)], axis=-1)
        else:
            down = [slice(i, i + (h - 1) * sh + 1, sh) for i in range(kh)]
            taps = [tap[:, rows] for rows in down for tap in across]
        x = jnp.concatenate(taps, axis=-1)
        x, g = (a.reshape(-1, a.shape[-1]) for a in (x, g))
        return total + _over_rows(g, x, precision), None

    shape = (kh * cout, kw * cin) if both else (cout, kh * kw * cin)
    zeros = jnp.zeros(shape, jnp.result_type(x, g))
    blocks = [a.reshape(n // block, block, *a.shape[1:]) for a in (x, g)]
    total, _ = lax.scan(add_block, zeros, blocks)
    if both:
        return total.reshape(kh, cout, kw, cin).transpose(0, 2, 3, 1)
    return total.reshape(cout, kh, kw, cin).transpose(1, 2, 3, 0)


def _block_size(n: int, bytes_each: int) -> int:
    """The largest divisor of `n` pictures whose columns fit in `BLOCK_BYTES`, or 2 (1 if odd).

    The cores share the copying of a block by pictures.
    """
    limit = max(2, BLOCK_BYTES // bytes_each)
    return max(d for d in range(1, n + 1) if n % d == 0 and d <= limit)
