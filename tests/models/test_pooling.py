"""Windowed maxima and their gradient are XLA's."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxgear.models.cpu.pooling import max_pool


@settings(max_examples=24, deadline=None)
@given(
    n=st.integers(1, 3),
    side=st.tuples(st.integers(3, 11), st.integers(3, 11)),
    window=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    strides=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    pad=st.integers(0, 1),
    levels=st.sampled_from([2, 1000]),  # 2: nearly every window has ties
)
def test_values_and_gradients_equal_xla(n, side, window, strides, pad, levels):
    padding = tuple((min(pad, size - 1), 0) for size in window)
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.integers(0, levels, (n, *side, 3)), jnp.float32)
    shape = jax.eval_shape(lambda x: nn.max_pool(x, window, strides, padding), x).shape
    g = jnp.asarray(rng.integers(-9, 9, shape), jnp.float32)  # sums of these are exact

    def pulled(pool):
        y, pull = jax.vjp(lambda x: pool(x, window, strides, padding), x)
        return y, *pull(g)

    for a, b in zip(
        *(jax.jit(pulled, static_argnums=0)(p) for p in (max_pool, nn.max_pool)), strict=True
    ):
        np.testing.assert_array_equal(a, b)


def test_half_precision_stays_half():
    x = jnp.ones((1, 4, 4, 2), jnp.bfloat16)
    y, pull = jax.vjp(lambda x: max_pool(x, (3, 3), (2, 2), ((1, 1), (1, 1))), x)
    assert y.dtype == jnp.bfloat16
    assert pull(y)[0].dtype == jnp.bfloat16


@pytest.mark.parametrize(
    ("window", "strides", "says"),
    [
        ((20, 20), (1, 1), "at most 256"),
        ((0, 2), (1, 1), "at least 1"),
        ((2, 2), (0, 1), "at least 1"),
        ((22, 2), (2, 2), "larger than the map of 21 x 21"),
    ],
)
def test_windows_that_cannot_be_are_refused(window, strides, says):
    with pytest.raises(ValueError, match=says):
        max_pool(jnp.ones((1, 21, 21, 1)), window, strides)
