"""Windowed and global maxima and their gradients are XLA's."""

import os
import subprocess
import sys
from pathlib import Path

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxgear.models.cpu import pooling
from jaxgear.models.cpu.pooling import global_max, max_pool

ROOT = Path(__file__).parents[2]


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


@pytest.mark.parametrize("side", [(1, 1), (5, 7)])
@pytest.mark.parametrize("levels", [2, 1000])  # 2: nearly every map has ties
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_global_maxima_and_their_gradients_equal_those_of_jax(side, levels, dtype):
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.integers(0, levels, (3, *side, 4)), dtype)
    g = jnp.asarray(rng.normal(size=(3, 4)), dtype)

    def pulled(pool):
        y, pull = jax.vjp(pool, x)
        return y, *pull(g)

    found, expected = (
        jax.jit(pulled, static_argnums=0)(pool) for pool in (global_max, lambda x: x.max((1, 2)))
    )
    for a, b in zip(found, expected, strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_array_equal(a, b)


def test_where_no_pixel_equals_the_maximum_the_largest_gets_its_gradient():
    """As when XLA computes the map twice and rounds differently."""
    x = jnp.asarray(np.random.default_rng(0).permutation(60).reshape(1, 4, 5, 3), jnp.float32)
    g = jnp.asarray([[1.0, 2.0, 3.0]])
    (found,) = pooling._global_backward((x, x.max((1, 2)) + 0.5), g)
    np.testing.assert_array_equal(found, jnp.where(x == x.max((1, 2)), g, 0))


@pytest.mark.slow
def test_gradients_are_finite_where_xla_does_not_optimise():
    """Some kernels then fuse multiplication and addition, and others do not."""
    code = """
import jax, jax.numpy as jnp, numpy as np
from jaxgear.models.convnet import Conv, ConvNet, GlobalPool

net = ConvNet([Conv(4), GlobalPool()], classes=3)
x = jnp.asarray(np.random.default_rng(0).uniform(0, 255, (8, 8, 8, 3)), jnp.float32)
variables = net.init(jax.random.key(0), x, train=False)
shifted = jax.tree.map(lambda p: p + 0.1, variables["params"])  # a bias of 0 is never rounded

def loss(params):
    variables_ = variables | {"params": params}
    return net.apply(variables_, x, train=True, mutable=["batch_stats"])[0].var()

assert all(jnp.isfinite(g).all() for g in jax.tree.leaves(jax.jit(jax.grad(loss))(shifted)))
"""
    environment = os.environ | {"XLA_FLAGS": "--xla_backend_optimization_level=0"}
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environment,
                          capture_output=True, text=True)  # fmt: skip
    assert done.returncode == 0, done.stderr
