"""A convolution that is fast on CPUs, forward and backward.

`conv_general_dilated` replaces `jax.lax.conv_general_dilated` in Flax:

    nn.Conv(24, (3, 3), conv_general_dilated=convolution.conv_general_dilated)

On a CPU, XLA computes the kernel's gradient as a convolution with a huge window, which is slow for
large maps. Here it is a sum of matrix products over blocks of images that fit in the cache (im2col,
Chellapilla et al. 2006, applied to the gradient). Images with few channels are folded first, which
makes the products wider. 1x1 windows are matrix products both ways. The input gradient of a small
map with many channels is one product with the kernel, not transposed. Everything else is XLA's own,
which is near the peak.

Other platforms use XLA's convolution, and so do groups, dilation and other layouts.
"""

import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax import lax

from jaxgear.models.cpu.gradients import (
    LAYOUT,
    NO_PADS,
    input_gradient,
    kernel_gradient,
    pad,
    pointwise,
    small,
    xla,
)

# Images with at most THIN channels have FOLD neighbouring pixels folded into channels. For a 3x3
# window that is a third more work, in products that are twice as wide both ways.
THIN, FOLD = 4, 2


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
    """Like `jax.lax.conv_general_dilated`, but faster on CPUs for plain convolutions.

    Raises:
        ValueError: a stride is below 1 (JAX would divide by zero).
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
    default, cpu = (
        functools.partial(convolve, strides=strides, pads=pads, precision=precision)
        for convolve in (xla, _cpu)
    )
    return lax.platform_dependent(x, kernel, cpu=cpu, default=default)


def _forward(x, kernel, strides, pads, precision):
    return _convolve(x, kernel, strides, pads, precision), (x, kernel)


def _backward(strides, pads, precision, residuals, g):
    x, kernel = residuals
    options = {"strides": strides, "pads": pads, "precision": precision}

    def on_cpu(x, kernel, g):
        if small(g, kernel.shape):
            dx = input_gradient(g, kernel, x.shape, **options)
        else:
            (dx,) = jax.linear_transpose(lambda x: _cpu(x, kernel, **options), x)(g)
        return dx, kernel_gradient(x, g, kernel.shape, **options)

    def elsewhere(x, kernel, g):
        (dx,) = jax.linear_transpose(lambda x: xla(x, kernel, **options), x)(g)
        (dkernel,) = jax.linear_transpose(lambda kernel: xla(x, kernel, **options), kernel)(g)
        return dx, dkernel

    return lax.platform_dependent(x, kernel, g, cpu=on_cpu, default=elsewhere)


_convolve.defvjp(_forward, _backward)


def _cpu(x, kernel, strides, pads, precision):
    if pointwise(kernel.shape, pads):
        x = x[:, :: strides[0], :: strides[1]]
        return lax.dot_general(x, kernel[0, 0], (((3,), (0,)), ((), ())), precision=precision)
    if _thin(x, kernel.shape, strides):
        n, height, width, _ = x.shape
        h = height + sum(pads[0]) - kernel.shape[0] + 1
        w = width + sum(pads[1]) - kernel.shape[1] + 1
        y = xla(_fold(x, kernel.shape, pads), _fold_kernel(kernel), (1, 1), NO_PADS, precision)
        # [N, h, ceil(w / FOLD), FOLD * Cout]: a reshape puts the pixels side by side.
        return y.reshape(n, h, -1, kernel.shape[3])[:, :, :w]
    return xla(x, kernel, strides, pads, precision)


def _thin(x, shape, strides) -> bool:
    """Whether folding helps: few input channels, and a window wider than one pixel."""
    return shape[2] <= THIN and shape[1] > 1 and strides == (1, 1)


def _fold(x, shape, pads):
    """Pads, then folds `FOLD` neighbours of a row into channels: [N, H', W' / FOLD, FOLD * Cin].

    Convolved with `_fold_kernel`, it gives `FOLD` neighbours of the output at once.
    """
    _, kw, cin, _ = shape
    n, _, width, _ = x.shape
    w = width + sum(pads[1]) - kw + 1
    folds = -(-w // FOLD) + _folds(kw) - 1
    x = pad(x, pads[0], (pads[1][0], folds * FOLD - width - pads[1][0]))
    return x.reshape(n, -1, folds, FOLD * cin)


def _fold_kernel(kernel):
    """The kernel at each offset: [kh, kw, Cin, Cout] -> [kh, folds, FOLD * Cin, FOLD * Cout]."""
    kh, kw, cin, cout = kernel.shape
    rest = _folds(kw) * FOLD - kw
    shifted = [jnp.pad(kernel, ((0, 0), (i, rest - i), (0, 0), (0, 0))) for i in range(FOLD)]
    return jnp.stack(shifted, axis=3).reshape(kh, _folds(kw), FOLD * cin, FOLD * cout)


def _folds(kw: int) -> int:
    """Columns of a folded image that the windows of `FOLD` neighbours span."""
    return -(-(FOLD + kw - 1) // FOLD)
