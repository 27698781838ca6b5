"""Batch normalisation with fewer passes over memory and an explicit gradient.

On a CPU, a ResNet's training step spends much of its time on passes over maps that do not fit in
the caches (results/README.md, "Batch normalisation and XLA's fusions").
"""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float


class BatchNorm(nn.Module):
    """Like `flax.linen.BatchNorm` over all axes but the last, with the same variables.

    Ioffe and Szegedy 2015. Statistics cover the whole batch, even if it is split over devices, in
    float32 or wider. The running variance is the biased one.
    """

    use_running_average: bool
    momentum: float = 0.9  # share of the running statistics that a step keeps
    epsilon: float = 1e-5
    dtype: str | jnp.dtype = "float32"  # of the result

    @nn.compact
    def __call__(self, x: Float[Array, "*B C"]) -> Float[Array, "*B C"]:
        each = ((x.shape[-1],), jnp.float32)
        scale = self.param("scale", nn.initializers.ones, *each)
        bias = self.param("bias", nn.initializers.zeros, *each)
        mean = self.variable("batch_stats", "mean", jnp.zeros, *each)
        var = self.variable("batch_stats", "var", jnp.ones, *each)
        if self.use_running_average:
            return _normalised(
                x, mean.value, var.value, scale, bias, self.epsilon, jnp.dtype(self.dtype)
            )
        shift = lax.stop_gradient(mean.value)
        y, *statistics = _by_batch(x, scale, bias, shift, self.epsilon, jnp.dtype(self.dtype))
        if not self.is_initializing():
            for running, new in zip((mean, var), statistics, strict=True):
                new = lax.stop_gradient(new).astype(running.value.dtype)
                running.value = self.momentum * running.value + (1 - self.momentum) * new
        return y


def _normalised(x, mean, var, scale, bias, epsilon, dtype):
    y = (x - mean) * (lax.rsqrt(var + epsilon) * scale) + bias
    return y.astype(dtype)


@functools.partial(jax.custom_vjp, nondiff_argnums=(4, 5))
def _by_batch(x, scale, bias, shift, epsilon, dtype):
    """The normalised batch, and its mean and variance, which have no gradient."""
    return _forward(x, scale, bias, shift, epsilon, dtype)[0]


def _forward(x, scale, bias, shift, epsilon, dtype):
    # Both sums in one pass. E[x^2] - E[x]^2 cancels for large means, so shift by about the mean
    # first (Chan et al. 1983): by the running mean, which every device has.
    axes = tuple(range(x.ndim - 1))
    wide = x.astype(jnp.promote_types(x.dtype, jnp.float32)) - shift
    above = wide.mean(axes)
    mean, var = above + shift, jnp.maximum(jnp.square(wide).mean(axes) - jnp.square(above), 0)
    y = _normalised(x, mean, var, scale, bias, epsilon, dtype)
    return (y, mean, var), (x, scale, mean, lax.rsqrt(var + epsilon))


def _backward(epsilon, dtype, residuals, gradients):
    x, scale, mean, slope = residuals
    axes, count = tuple(range(x.ndim - 1)), x.size // x.shape[-1]
    g = gradients[0].astype(mean.dtype)
    sum_g, sum_gx = g.sum(axes), (g * (x - mean)).sum(axes)
    gain = slope * scale
    dx = gain * g - (gain * jnp.square(slope) * sum_gx / count) * (x - mean) - gain * sum_g / count
    dscale = (slope * sum_gx).astype(scale.dtype)
    return dx.astype(x.dtype), dscale, sum_g.astype(scale.dtype), jnp.zeros_like(mean)


_by_batch.defvjp(_forward, _backward)
