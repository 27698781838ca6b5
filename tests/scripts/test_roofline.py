"""The roofline table: what is counted, and what the floor is."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import pytest

from jaxgear.models.cpu import convolution
from scripts import roofline


def test_a_loop_counts_as_often_as_it_runs():
    square = jnp.ones((64, 64))
    loop = lambda x: jax.lax.fori_loop(0, 5, lambda i, y: y @ x, x)  # noqa: E731
    flops, size = roofline.counted(loop, (square,))
    assert flops == pytest.approx(5 * 2 * 64**3, rel=0.01)
    assert size >= 2 * square.nbytes


def test_the_gradient_of_a_convolution_counts_as_its_products():
    """Not as our blocks of it: those are a loop."""

    def conv():  # made when the network is called, as in the layers of ours
        ours = convolution.conv_general_dilated
        return nn.Conv(16, (3, 3), use_bias=False, conv_general_dilated=ours)

    images = jnp.ones((8, 32, 32, 16))
    params = conv().init(jax.random.key(0), images)
    gradient = jax.grad(lambda params, images: conv().apply(params, images).sum(), (0, 1))
    flops, _ = roofline.counted(gradient, (params, images))
    once = 2 * 8 * 32**2 * 9 * 16 * 16  # to the weights, and to the pictures; less at the edges
    assert 1.8 * once < flops < 2.1 * once


def test_calls_take_turns_and_the_fastest_counts():
    called = []
    calls = {name: functools.partial(called.append, name) for name in "ab"}
    found = roofline.fastest(calls, rounds=3)
    assert called == list("ab" * 5)
    assert all(0 < seconds < 1 for seconds in found.values())


def test_the_floor_is_the_larger_of_two():
    rows = [
        roofline.Row("net", "forward", 0.030, 2e9, 1e6),
        roofline.Row("net", "optimizer", 0.010, 1e6, 40e6),
        roofline.Row("net", "decode", 0.005),
    ]
    lines = roofline.table(rows, peak=100e9, bandwidth=10e9).splitlines()
    assert lines[0] == "Matrix product 100 GFLOP/s, memory 10.0 GB/s."
    assert lines[4:] == [
        "| net | forward | 2.00 | 1 | 20.0 (FLOPs) | 30.0 | 1.5 |",
        "| net | optimizer | 0.00 | 40 | 4.0 (bytes) | 10.0 | 2.5 |",
        "| net | decode |  |  |  | 5.0 |  |",
    ]
