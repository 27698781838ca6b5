"""FLOPs of traced programs: as counted by hand, and as XLA counts where both count the same."""

import functools
from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax import lax

from jaxgear.data.batches import Batches, take
from jaxgear.models.cpu.convolution import conv_general_dilated
from jaxgear.program import flops
from jaxgear.training import steps


def count(function, *arguments):
    return flops(jax.jit(function).trace(*arguments).jaxpr)


class Network(nn.Module):
    """Convolution, pooling and two dense layers."""

    convolve: Callable = lax.conv_general_dilated

    @nn.compact
    def __call__(self, x, train=False):
        x = nn.relu(nn.Conv(4, (3, 3), conv_general_dilated=self.convolve)(x))
        x = nn.max_pool(x, (2, 2), (2, 2)).reshape(len(x), -1)
        return nn.Dense(5)(nn.relu(nn.Dense(7)(x)))


# For a picture of 8 x 8 pixels. Of the 3 taps of a kernel, 8 times a row, 2 meet the padding.
CONVOLUTION = 2 * (3 * 8 - 2) ** 2 * 3 * 4
DENSE = 2 * (4 * 4 * 4 * 7 + 7 * 5)
# The gradient of a product is two products. The first layer needs that of its kernel alone.
STEP = 2 * CONVOLUTION + 3 * DENSE


@pytest.mark.parametrize("convolve", [lax.conv_general_dilated, conv_general_dilated])
def test_a_small_convolution_network_by_hand(convolve):
    """The same for XLA's convolution and ours, whose forms for CPUs work otherwise."""
    network, images = Network(convolve), jnp.ones((2, 8, 8, 3))
    variables = network.init(jax.random.key(0), images)
    loss = lambda variables: network.apply(variables, images).sum()  # noqa: E731
    assert count(loss, variables) == 2 * (CONVOLUTION + DENSE)
    assert count(jax.value_and_grad(loss), variables) == 2 * STEP


def test_a_training_step_counts_its_batch_however_it_is_computed():
    """In parts, as one of several steps in a program, or with padding in the batch."""
    train = Batches(np.zeros((14, 8, 8, 3), np.uint8), np.zeros(14, np.int32), 8)
    state = steps.init_state(Network(), optax.adam(0.1), train.images[:1], seed=0)
    options = {"classes": 5, "loss": steps.smoothed_cross_entropy(0.0)}
    for more in ({}, {"microbatch": 2}, {"per_example": True}):
        step = functools.partial(steps.train_step, **options, **more)
        assert count(step, state, next(train.ordered())) == 8 * STEP
    rows = functools.partial(take, train.mesh, train.images, train.labels)
    chunk = functools.partial(steps.train_chunk, step, rows)
    assert count(chunk, state, next(train.chunks(1, 0, 2))) == 8 * STEP


@pytest.mark.parametrize(
    ("shape", "kernel", "options"),
    [
        ((2, 9, 10, 3), (3, 3, 3, 4), {"window_strides": (2, 1), "padding": "SAME"}),
        ((2, 9, 9, 3), (2, 2, 3, 4), {"window_strides": (3, 3), "padding": "VALID"}),
        ((2, 9, 9, 3), (3, 3, 3, 4), {"window_strides": (1, 1), "padding": ((4, 0), (-1, 2))}),
        ((1, 9, 9, 2), (3, 3, 2, 4), {"rhs_dilation": (2, 2), "padding": "SAME"}),
        ((1, 5, 5, 2), (3, 3, 2, 4), {"lhs_dilation": (2, 2), "padding": ((2, 1), (0, 3))}),
        ((2, 9, 9, 6), (3, 3, 2, 6), {"feature_group_count": 3, "padding": "SAME"}),
    ],
)
def test_a_convolution_and_its_gradients_are_those_of_xla(shape, kernel, options):
    options = {"window_strides": (1, 1), "dimension_numbers": ("NHWC", "HWIO", "NHWC")} | options
    arguments = jnp.ones(shape), jnp.ones(kernel)
    forward = functools.partial(lax.conv_general_dilated, **options)
    gradients = jax.grad(lambda x, kernel: forward(x, kernel).sum(), (0, 1))
    once = count(forward, *arguments)
    assert once == jax.jit(forward).lower(*arguments).cost_analysis()["flops"] > 0
    assert count(gradients, *arguments) == 2 * once


def test_loops_conditions_and_forms():
    square = jnp.ones((4, 4))
    product = 2 * 4**3
    times = lambda number, x: lax.fori_loop(0, number, lambda i, y: y @ x, x)  # noqa: E731
    assert count(lambda x: times(5, x), square) == 5 * product
    assert count(times, 5, square) == product  # how often is data
    either = lambda x, one: lax.cond(one, lambda: x @ x, lambda: x @ x @ x)  # noqa: E731
    assert count(either, square, True) == 2 * product
    form = functools.partial(lax.platform_dependent, cpu=lambda x: x, default=lambda x: x @ x)
    assert count(form, square) == product
    assert count(jax.vmap(lambda x: x @ x), jnp.ones((3, 4, 4))) == 3 * product
    twice = jax.checkpoint(lambda x: jnp.sin(x @ x).sum())
    assert count(jax.grad(twice), square) == 3 * product  # once more, to recompute


def test_what_no_result_needs_does_not_count():
    square = jnp.ones((4, 4))
    assert count(lambda x: (x @ x, x)[1], square) == 0
    assert count(lambda x: 7, square) == 0
    inner = jax.jit(lambda x: (x @ x, x.T @ x @ x))
    assert count(lambda x: lax.cond(True, inner, inner, x)[0], square) == 2 * 4**3
