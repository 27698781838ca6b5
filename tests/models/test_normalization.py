"""Batch normalisation and its gradient are Flax's."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxgear.models.cpu.normalization import BatchNorm


def both(dtype="float32", train=True, **options):
    """Ours and Flax's, of exact variance."""
    options |= {"momentum": 0.9, "use_running_average": not train, "dtype": dtype}
    return BatchNorm(**options), nn.BatchNorm(use_fast_variance=False, **options)


def variables(rng, channels, mean=0.0):
    draw = lambda low, high: jnp.asarray(rng.uniform(low, high, channels), jnp.float32)  # noqa: E731
    return {
        "params": {"scale": draw(-2, 2), "bias": draw(-2, 2)},
        "batch_stats": {"mean": mean + draw(-1, 1), "var": draw(0.5, 2)},
    }


@functools.partial(jax.jit, static_argnums=0)
def pulled(module, made, x, g):
    """Result, statistics, and the gradients of x, scale and bias for `g`."""

    def run(params, x):
        return module.apply(made | {"params": params}, x, mutable=["batch_stats"])

    y, pull, changed = jax.vjp(run, made["params"], x, has_aux=True)
    return y, changed["batch_stats"], pull(g.astype(y.dtype))


def compare(ours, theirs, rtol):
    for mine, other in zip(*map(jax.tree.leaves, (ours, theirs)), strict=True):
        mine, other = np.asarray(mine, np.float64), np.asarray(other, np.float64)
        scale = max(1, np.abs(other).max())
        np.testing.assert_allclose(mine, other, rtol=0, atol=rtol * scale)


@settings(max_examples=12, deadline=None)
@given(
    shape=st.one_of(
        st.tuples(st.integers(6, 30), st.integers(1, 6)),
        st.tuples(st.integers(2, 4), st.integers(2, 7), st.integers(2, 7), st.integers(1, 6)),
    ),
    mean=st.sampled_from([0.0, 5.0, 300.0]),
    seed=st.integers(0, 2**32 - 1),
)
def test_values_statistics_and_gradients_equal_flax(shape, mean, seed):
    rng = np.random.default_rng(seed)
    made = variables(rng, shape[-1], mean)
    x, g = rng.normal(size=shape), rng.normal(size=shape)
    x = x * rng.uniform(0.5, 3, shape[-1]) + mean
    with jax.enable_x64(True):
        wide = jnp.asarray(x), jnp.asarray(g)
        ours, flax = (pulled(module, made, *wide) for module in both("float64"))
    compare(ours[::2], flax[::2], 1e-11)
    compare(ours[1], flax[1], 1e-6)  # running statistics are float32
    narrow = jnp.asarray(x, jnp.float32), jnp.asarray(g, jnp.float32)
    ours, flax = (pulled(module, made, *narrow) for module in both())
    # What rounding x itself does to either grows with its mean.
    compare(ours, flax, 2e-4 if mean < 100 else 2e-2)


def test_a_large_mean_leaves_the_variance_its_digits():
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.normal(size=(512, 3)) + 10_000, jnp.float32)
    made = variables(rng, 3, mean=10_000)
    ours, flax = (pulled(module, made, x, x)[1]["var"] for module in both())
    np.testing.assert_allclose(ours, flax, rtol=1e-3)


def test_a_constant_map_has_no_variance_and_no_nan():
    x = jnp.full((4, 5, 5, 2), 3.3)
    made = variables(np.random.default_rng(0), 2)
    y, changed, (_, dx) = pulled(both()[0], made, x, jnp.ones_like(x))
    np.testing.assert_allclose(y, np.broadcast_to(made["params"]["bias"], y.shape), atol=1e-3)
    np.testing.assert_allclose(changed["var"], 0.9 * made["batch_stats"]["var"], atol=1e-5)
    assert jnp.isfinite(dx).all()


@pytest.mark.parametrize("train", [True, False])
def test_half_precision_is_normalised_in_float32(train):
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.normal(size=(8, 4, 4, 6)), jnp.bfloat16)
    made = variables(rng, 6)
    g = jnp.asarray(rng.normal(size=x.shape), jnp.bfloat16)
    ours, flax = (pulled(module, made, x, g) for module in both("bfloat16", train))
    compare(ours, flax, 1e-2)
    assert ours[0].dtype == jnp.bfloat16
    assert ours[1]["mean"].dtype == jnp.float32


def test_variables_and_running_statistics_are_flax_own():
    x = jnp.asarray(np.random.default_rng(0).normal(size=(8, 6)), jnp.float32)
    ours, flax = (module.init(jax.random.key(0), x) for module in both())
    assert jax.tree.structure(ours) == jax.tree.structure(flax)
    compare(ours, flax, 0)  # the first pass only makes them
    compare(*(pulled(module, ours, x, x) for module in both(train=False)), 1e-6)
