"""A convolution whose weight gradient is fast on CPUs.

`conv_general_dilated` takes the place of `jax.lax.conv_general_dilated` in Flax:

    nn.Conv(24, (3, 3), conv_general_dilated=convolution.conv_general_dilated)

The forward pass is XLA's own. On a CPU, XLA computes the gradient of the weights as a convolution
with an enormous window, far below what the cores can do; here it is a sum of matrix products over
blocks of pictures that fit in the cache (im2col, Chellapilla et al. 2006, applied to the gradient).
On every other platform, and for the shapes this cannot serve (groups, dilation, other layouts),
gradients are XLA's.
"""

import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax import lax

LAYOUT = ("NHWC", "HWIO", "NHWC")
# Bytes of the gathered columns of one block: a core's L2 cache is 1 MiB, and columns share it with
# the incoming gradient. Measured best between 1/2 and 4 MiB (results/README.md).
BLOCK_BYTES = 2 << 20


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
    """`jax.lax.conv_general_dilated` with a faster weight gradient where that is possible."""
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
    return lax.conv_general_dilated(
        x, kernel, strides, pads, dimension_numbers=LAYOUT, precision=precision
    )


def _forward(x, kernel, strides, pads, precision):
    return _convolve(x, kernel, strides, pads, precision), (x, kernel)


def _backward(strides, pads, precision, residuals, g):
    x, kernel = residuals
    xla = functools.partial(
        lax.conv_general_dilated,
        window_strides=strides,
        padding=pads,
        dimension_numbers=LAYOUT,
        precision=precision,
    )
    (dx,) = jax.linear_transpose(lambda x: xla(x, kernel), x)(g)
    dkernel = lax.platform_dependent(
        x,
        g,
        cpu=lambda x, g: _kernel_gradient(x, g, kernel.shape[:2], strides, pads, precision),
        default=lambda x, g: jax.linear_transpose(lambda k: xla(x, k), kernel)(g)[0],
    )
    return dx, dkernel


_convolve.defvjp(_forward, _backward)


def _kernel_gradient(x, g, window, strides, pads, precision):
    """Gradient of the kernel, [kh, kw, Cin, Cout], as matrix products over blocks of pictures.

    The taps of one kernel row lie side by side in a block's columns, [b, rows, w, kw * Cin]; the
    kernel's rows are then kh strided views of the same columns, each one matrix product with `g`.
    """
    (kh, kw), (sh, sw) = window, strides
    n, _, _, cin = x.shape
    _, h, w, cout = g.shape
    # A negative pad crops. Rows and columns past the last window are cropped likewise.
    height, width = (h - 1) * sh + kh, (w - 1) * sw + kw
    x = lax.pad(
        x,
        jnp.zeros((), x.dtype),
        (
            (0, 0, 0),
            (pads[0][0], height - x.shape[1] - pads[0][0], 0),
            (pads[1][0], width - x.shape[2] - pads[1][0], 0),
            (0, 0, 0),
        ),
    )
    block = _block_size(n, height * w * kw * cin * x.dtype.itemsize)
    blocks = (
        x.reshape(n // block, block, height, width, cin),
        g.reshape(n // block, block * h * w, cout),
    )

    def add_block(total, block_of):
        x, g = block_of
        columns = jnp.concatenate(
            [x[:, :, j : j + (w - 1) * sw + 1 : sw] for j in range(kw)], axis=-1
        )  # [b, height, w, kw * Cin]
        rows = [
            lax.dot_general(
                columns[:, i : i + (h - 1) * sh + 1 : sh].reshape(block * h * w, kw * cin),
                g,
                (((0,), (0,)), ((), ())),
                precision=precision,
            )
            for i in range(kh)
        ]
        return total + jnp.stack(rows), None

    zeros = jnp.zeros((kh, kw * cin, cout), jnp.result_type(x, g))
    total, _ = lax.scan(add_block, zeros, blocks)
    return total.reshape(kh, kw, cin, cout)


def _block_size(n: int, bytes_each: int) -> int:
    """The largest divisor of `n` pictures whose columns fit in `BLOCK_BYTES` (at least one)."""
    limit = max(1, BLOCK_BYTES // bytes_each)
    return max(d for d in range(1, n + 1) if n % d == 0 and d <= limit)
